/* C11: the sizes that the interface promises. */
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

_Static_assert(offsetof(dp_env, struct_size) == 0, "struct_size comes first");
_Static_assert(offsetof(dp_train_options, struct_size) == 0, "struct_size comes first");
_Static_assert(offsetof(dp_quant_options, struct_size) == 0, "struct_size comes first");
_Static_assert(DP_OK == 0 && DP_ISA_AUTO == 0, "0 is ok or the default");

int main(void) {
    return dp_version() != DP_VERSION;
}
