/* whole_file.h - files that strangers may have made, and files that are written whole or not at
 * all.
 *
 * Reading: a device, a FIFO or a folder is an error at once; opening a FIFO does not wait.
 *
 * Writing: the data goes to a temporary file with an unpredictable name in the folder of the
 * target, opened exclusively and through no link, which is renamed over the target when it is
 * complete. If the path is a symbolic link, its target is written. The permissions of a file that
 * was there stay.
 */
#ifndef AT_IO_WHOLE_FILE_H
#define AT_IO_WHOLE_FILE_H

#include "attune.h"

/* The message "path: what: " and the text of errno, which attune_system_error() then returns. */
attune_status at_io_failure(const char *what, const char *path);

/* *fd is open for reading, and *bytes is the size of the file. EIO. */
attune_status at_open_file(const char *path, int *fd, int64_t *bytes);

/* Reads bytes [offset, offset + bytes). EFORMAT: the file ends before; EIO; EINTERRUPT. */
attune_status at_read_file(int fd, const char *path, int64_t offset, void *to, int64_t bytes);

typedef struct at_new_file {
    const char *path;   /* as the caller named it */
    char *target;       /* the path with its links followed */
    char temporary[64]; /* the name of the temporary file in the target's folder */
    int folder, fd;     /* open; -1: closed */
} at_new_file;

/* at_end_file is always called, after an error too. status: that of the writing so far; if it is
 * ATTUNE_OK, the file is flushed to disk and renamed, else the temporary file is removed. Returns
 * status, or the failure. */
attune_status at_begin_file(const char *path, at_new_file *out);
attune_status at_write_file(const at_new_file *f, const void *data, int64_t bytes);
attune_status at_end_file(at_new_file *f, attune_status status);

#endif
