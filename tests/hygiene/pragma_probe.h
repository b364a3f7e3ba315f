/* Stands in for the intrinsics header, so that it is compiled inside the pinned region. */
#include <immintrin.h>
float pinned_inside(float a, float b, float c);

float pinned_inside(float a, float b, float c) {
    return a * b + c;
}

float pinned_sum(float a, float b);

float pinned_sum(float a, float b) {
    return a + b - a;
}
