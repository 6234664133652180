/* lua_descriptors.c - file descriptors of this process: what luv lacks.
 *
 * core._lock_folder(path) -> descriptor, or nil, message and "busy" or "unsupported"
 *   An exclusive lock on a folder. It ends when the descriptor is closed or the process ends, so a
 *   killed process leaves none. No child inherits it.
 * core._close_on_exec()
 *   No descriptor above standard error that is open now is inherited by a program started later.
 * core._keep_standard_files()
 *   Where standard input, output or error is closed, opens the null device there so that reading
 *   gives nothing and writing fails. Without it the next file that is opened would take that
 *   descriptor, and what is printed would go into that file. Writing to a pipe that nobody reads
 *   fails from then on and does not end the process. Programs that it starts are ended as ever.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "binding.h"

static int push_failure(lua_State *L, const char *path, int error) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, strerror(error));
    if (error == EWOULDBLOCK)
        lua_pushliteral(L, "busy");
    else if (error == EBADF || error == ENOLCK || error == EOPNOTSUPP || error == EINVAL)
        lua_pushliteral(L, "unsupported"); /* some network file systems */
    else
        lua_pushnil(L);
    return 3;
}

static int lock_folder(lua_State *L) {
    const char *path = check_text(L, 1, "path", "a folder's name");
    const int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return push_failure(L, path, errno);
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        const int error = errno;
        close(descriptor);
        return push_failure(L, path, error);
    }
    lua_pushinteger(L, descriptor);
    return 1;
}

static int close_on_exec(lua_State *L) {
    (void)L;
    DIR *open_files = opendir("/proc/self/fd");
    if (!open_files) return 0;
    for (struct dirent *entry; (entry = readdir(open_files)) != NULL;) {
        const int descriptor = atoi(entry->d_name); /* "." and ".." give 0 */
        if (descriptor > STDERR_FILENO) fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    }
    closedir(open_files);
    return 0;
}

static void do_nothing(int number) { (void)number; }

static int keep_standard_files(lua_State *L) {
    (void)L;
    /* A handler and not SIG_IGN, which programs started later would inherit. */
    struct sigaction before, ours = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGPIPE, NULL, &before) == 0 && before.sa_handler == SIG_DFL)
        sigaction(SIGPIPE, &ours, NULL);
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++) {
        if (fcntl(descriptor, F_GETFD) >= 0) continue;
        /* The lowest free descriptor is this one. Read-only, so that writing fails. */
        const int opened = open("/dev/null", O_RDONLY);
        if (opened > descriptor) close(opened);
    }
    return 0;
}

void open_descriptors(lua_State *L) {
    static const luaL_Reg functions[] = {{"_lock_folder", lock_folder},
                                         {"_close_on_exec", close_on_exec},
                                         {"_keep_standard_files", keep_standard_files},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
