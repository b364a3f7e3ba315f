/* What DP_MALLOC and DP_FREE stand for in the check of a build without malloc. */
#include <stddef.h>
void *own_malloc(size_t bytes);
void  own_free(void *p);
