/* The implementation; two_tus_b.c and cpp_user.cpp use it from another unit. */
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"
