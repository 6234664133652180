/* shards.h - safetensors in several files, with an index: model.safetensors.index.json. */
#ifndef AT_IO_SHARDS_H
#define AT_IO_SHARDS_H

#include "io/tensor_file.h"

/* Opens a file and appends it to the parts of f. */
attune_status at_add_part(attune_file *f, const char *path);

/* f->part[0] is the open index. Opens and parses each file that its weight_map names, which must
 * lie in the folder of the index. EFORMAT unless weight_map names exactly the tensors that the
 * files hold, each with its file. */
attune_status at_parse_shards(attune_file *f);

#endif
