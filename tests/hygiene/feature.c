/* The implementation alone; run.sh adds one -DDP_NO_... and reads the object with nm. */
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"
