// The whole implementation as C++11 and later, beside the C++ library.
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"
#include <string>
#include <vector>

int main() {
    dp_env env;
    DP_CLEAR(env);
    std::vector<std::string> names(1, dp_status_text(DP_OK));
    return env.struct_size != sizeof env || dp_version() != DP_VERSION || names[0].empty();
}
