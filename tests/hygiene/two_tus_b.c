/* Names every public function, so that the linker proves that each is implemented. The list
 * PUBLIC_FUNCTIONS(X) is written by run.sh from the declarations in part A. */
#include "../../diseasepred.h"
#include "public_functions.h"

typedef void any(void);

int main(void) {
#define FUNCTION_ADDRESS(name) (any *)name,
    static any *const functions[] = {PUBLIC_FUNCTIONS(FUNCTION_ADDRESS)};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (functions[i] == 0) return 1;
    return dp_version() != DP_VERSION;
}
