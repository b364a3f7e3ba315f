// A C++ program that links the C implementation of two_tus_a.c.
#include "../../diseasepred.h"

int main() {
    dp_env env;
    DP_CLEAR(env);
    return env.struct_size != sizeof env || dp_version() != DP_VERSION;
}
