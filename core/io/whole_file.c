/* whole_file.c - see whole_file.h. */
#include "io/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"

/* PIECE: bytes of one read or write, so that an interrupt ends a long one soon. */
enum { PIECE = 16 << 20, MAX_LINKS = 40, PERMISSIONS = 0777 };

static _Thread_local int system_error;

int attune_system_error(void) { return system_error; }

attune_status at_io_failure(const char *what, const char *path) {
    system_error = errno;
    return at_fail(ATTUNE_EIO, "%s: %s: %s", path, what, strerror(system_error));
}

/* A path that is no regular file. */
static attune_status wrong_kind(const char *path, mode_t mode) {
    const char *kind = S_ISDIR(mode)                    ? "a folder"
                       : S_ISFIFO(mode)                 ? "a FIFO (named pipe)"
                       : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                       : S_ISSOCK(mode)                 ? "a socket"
                                                        : "something else";
    system_error = S_ISDIR(mode) ? EISDIR : EINVAL;
    return at_fail(ATTUNE_EIO, "%s: expected a file, got %s", path, kind);
}

/* ---- reading --------------------------------------------------------------------------------- */

attune_status at_open_file(const char *path, int *fd, int64_t *bytes) {
    struct stat info;
    /* O_NONBLOCK: opening a FIFO does not wait for a writer. */
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (*fd < 0) return at_io_failure("opening", path);
    attune_status status = ATTUNE_OK;
    if (fstat(*fd, &info) != 0)
        status = at_io_failure("opening", path);
    else if (!S_ISREG(info.st_mode))
        status = wrong_kind(path, info.st_mode);
    if (status != ATTUNE_OK) {
        close(*fd);
        *fd = -1;
        return status;
    }
    *bytes = info.st_size;
    return ATTUNE_OK;
}

attune_status at_read_file(int fd, const char *path, int64_t offset, void *to, int64_t bytes) {
    for (int64_t done = 0; done < bytes;) {
        const int64_t piece = bytes - done < PIECE ? bytes - done : PIECE;
        if (at_interrupted()) return at_interrupted_status();
        const ssize_t n = pread(fd, (char *)to + done, (size_t)piece, offset + done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return at_io_failure("reading", path);
        if (n == 0) return at_fail(ATTUNE_EFORMAT, "%s: the file ends inside its data", path);
        done += n;
    }
    return ATTUNE_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static char *copy_path(const char *path) {
    const int64_t bytes = (int64_t)strlen(path) + 1;
    char *copy = at_alloc(bytes);
    if (copy) memcpy(copy, path, (size_t)bytes);
    return copy;
}

/* The path that the link at `path` names. */
static attune_status read_link(const char *path, char **out) {
    char text[PATH_MAX + 1];
    const ssize_t n = readlink(path, text, PATH_MAX);
    if (n < 0) return at_io_failure("reading the link", path);
    text[n] = 0;
    const char *slash = strrchr(path, '/');
    const int64_t folder = slash && text[0] != '/' ? slash - path + 1 : 0;
    *out = at_alloc(folder + n + 1);
    if (!*out) return ATTUNE_EMEMORY;
    memcpy(*out, path, (size_t)folder);
    memcpy(*out + folder, text, (size_t)n + 1);
    return ATTUNE_OK;
}

/* f->target: where the links of f->path end; nothing need be there. *mode: the permissions of the
 * file there; -1: there is none. */
static attune_status find_target(at_new_file *f, int *mode) {
    struct stat info;
    *mode = -1;
    f->target = copy_path(f->path);
    if (!f->target) return ATTUNE_EMEMORY;
    for (int links = 0; lstat(f->target, &info) == 0; links++) {
        if (!S_ISLNK(info.st_mode)) {
            if (!S_ISREG(info.st_mode)) return wrong_kind(f->path, info.st_mode);
            *mode = (int)(info.st_mode & PERMISSIONS);
            return ATTUNE_OK;
        }
        if (links == MAX_LINKS) {
            errno = ELOOP;
            break;
        }
        char *next;
        AT_TRY(read_link(f->target, &next));
        at_free(f->target);
        f->target = next;
    }
    return errno == ENOENT ? ATTUNE_OK : at_io_failure("creating", f->path);
}

static const char *name_of(const at_new_file *f) {
    const char *slash = strrchr(f->target, '/');
    return slash ? slash + 1 : f->target;
}

static attune_status open_folder(at_new_file *f) {
    char *slash = strrchr(f->target, '/');
    if (!slash) {
        f->folder = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    } else {
        const char first = f->target[0];
        *slash = 0;
        f->folder = open(first == '/' && slash == f->target ? "/" : f->target,
                         O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        *slash = '/';
    }
    return f->folder < 0 ? at_io_failure("creating", f->path) : ATTUNE_OK;
}

/* The form of the name is also that of the Lua library's temporary files, which are cleared once
 * the process of that number has ended. */
static attune_status open_temporary(at_new_file *f, int mode) {
    unsigned char random[12];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return at_io_failure("creating", f->path);
    int used = snprintf(f->temporary, sizeof f->temporary, ".attune-%ld-", (long)getpid());
    for (size_t i = 0; i < sizeof random; i++)
        used +=
            snprintf(f->temporary + used, sizeof f->temporary - (size_t)used, "%02x", random[i]);
    f->fd = openat(f->folder, f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                   mode < 0 ? 0666 : 0600);
    if (f->fd < 0) return at_io_failure("creating", f->path);
    if (mode >= 0 && fchmod(f->fd, (mode_t)mode) != 0) return at_io_failure("creating", f->path);
    return ATTUNE_OK;
}

attune_status at_begin_file(const char *path, at_new_file *out) {
    int mode;
    *out = (at_new_file){.path = path, .folder = -1, .fd = -1};
    AT_TRY(find_target(out, &mode));
    if (!*name_of(out)) {
        errno = *path ? EISDIR : ENOENT;
        return at_io_failure("creating", path);
    }
    AT_TRY(open_folder(out));
    return open_temporary(out, mode);
}

attune_status at_write_file(const at_new_file *f, const void *data, int64_t bytes) {
    for (int64_t done = 0; done < bytes;) {
        const int64_t piece = bytes - done < PIECE ? bytes - done : PIECE;
        if (at_interrupted()) return at_interrupted_status();
        const ssize_t n = write(f->fd, (const char *)data + done, (size_t)piece);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return at_io_failure("writing", f->path);
        done += n;
    }
    return ATTUNE_OK;
}

attune_status at_end_file(at_new_file *f, attune_status status) {
    const bool created = f->fd >= 0;
    if (created && status == ATTUNE_OK && fsync(f->fd) != 0)
        status = at_io_failure("writing", f->path);
    if (created && close(f->fd) != 0 && status == ATTUNE_OK)
        status = at_io_failure("writing", f->path);
    if (created && status == ATTUNE_OK &&
        renameat(f->folder, f->temporary, f->folder, name_of(f)) != 0)
        status = at_io_failure("renaming", f->path);
    if (created && status != ATTUNE_OK) unlinkat(f->folder, f->temporary, 0);
    if (f->folder >= 0) close(f->folder);
    at_free(f->target);
    *f = (at_new_file){.folder = -1, .fd = -1};
    return status;
}
