/* A disk and a clock that fail on demand, for every process that has this library in LD_PRELOAD.
 *
 * The test writes into a page that all of them share (FAULTY_PAGE, drawn in faulty_disk.py): which calls fail, below which
 * folder, from the n-th to the m-th, with which error. With FAULTY_JOURNAL every change of the disk below that folder is
 * written down, so that faulty_disk.py can make the disk of a power cut from it: what was never synced is lost.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, NAME = 8, LOCK = 16, SIZE = 32 };
enum { SHORT = 0xFFFF };
enum { PIDS = 16 };

struct page {
    _Atomic uint32_t calls;                 /* mask of the above; 0: nothing fails */
    int32_t error;                          /* an errno, or SHORT: half of a write is written */
    uint32_t first, last;                   /* the calls that fail, counted from 1 */
    _Atomic uint32_t seen, failed;
    _Atomic int64_t clock_offset_ns;        /* added to CLOCK_REALTIME */
    uint32_t pids[PIDS];                    /* whose calls; 0: everybody's */
    char under[512];                        /* the folder, without a slash at its end */
};

static struct page *page;
static int journal = -1;
static char journal_under[512];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTY_PAGE");
    int descriptor = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (descriptor < 0) return;
    void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped != MAP_FAILED) page = mapped;
    if ((path = getenv("FAULTY_JOURNAL")) && page) {
        snprintf(journal_under, sizeof journal_under, "%s", page->under);
        journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
}

static int is_under(const char *path, const char *folder) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0 || length == 0);
}

static void path_of(int descriptor, char out[PATH_MAX]) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    out[length > 0 ? length : 0] = 0;
}

static void absolute_of(int folder, const char *path, char out[PATH_MAX]) {
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    char base[PATH_MAX];
    if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; } else path_of(folder, base);
    int ignored = snprintf(out, PATH_MAX, "%s/%s", base, path);
    (void)ignored;
}

/* Returns 1 where this call is to fail; errno is set, unless it is a short write. */
static int fails(uint32_t call, const char *path) {
    if (!page || !(atomic_load(&page->calls) & call) || !is_under(path, page->under)) return 0;
    if (page->pids[0]) {
        uint32_t own = (uint32_t)getpid();
        int found = 0;
        for (int i = 0; i < PIDS; i++) found |= page->pids[i] == own;
        if (!found) return 0;
    }
    uint32_t number = atomic_fetch_add(&page->seen, 1) + 1;
    if (number < page->first || number > page->last) return 0;
    if (page->error == SHORT && call != WRITE) return 0;
    atomic_fetch_add(&page->failed, 1);
    errno = page->error;
    return 1;
}

static int fails_fd(uint32_t call, int descriptor) {
    if (!page || !(atomic_load(&page->calls) & call)) return 0;
    char path[PATH_MAX];
    path_of(descriptor, path);
    return fails(call, path);
}

/* ---- the journal: one record for each change. kind, length of path, of the other path or the data, place. */

struct record { uint32_t kind, path, more, inode; int64_t place; };
enum { J_WRITE = 1, J_SYNC, J_CREATE, J_RENAME, J_LINK, J_UNLINK, J_MKDIR, J_TRUNCATE };

static void note(uint32_t kind, int descriptor, const char *path, const void *more, size_t length, int64_t place) {
    char own[PATH_MAX];
    int kept = errno;
    if (journal < 0) return;
    if (!path) { path_of(descriptor, own); path = own; }
    if (is_under(path, journal_under)) {
        struct stat status = {0};
        if (descriptor >= 0) syscall(SYS_newfstatat, descriptor, "", &status, AT_EMPTY_PATH);
        struct record head = {kind, (uint32_t)strlen(path), (uint32_t)length, (uint32_t)status.st_ino, place};
        struct iovec parts[3] = {{&head, sizeof head}, {(void *)path, head.path}, {(void *)more, length}};
        syscall(SYS_writev, journal, parts, 3);
    }
    errno = kept;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* ---- names */

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    int makes = flags & O_CREAT, watched = page && (makes || (flags & O_ACCMODE) != O_RDONLY);
    if (watched) {
        absolute_of(folder, path, whole);
        if (fails(OPEN, whole)) return -1;
    }
    struct stat status;
    int is_new = journal >= 0 && makes && syscall(SYS_newfstatat, folder, path, &status, 0) != 0;
    int descriptor = (int)syscall(SYS_openat, folder, path, flags | O_LARGEFILE, mode);
    if (descriptor >= 0 && is_new) note(J_CREATE, descriptor, whole, "", 0, 0);
    else if (descriptor >= 0 && watched && (flags & O_TRUNC)) note(J_TRUNCATE, descriptor, whole, "", 0, 0);
    return descriptor;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_at(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return open_at(folder, path, flags, mode); }

static int two_names(uint32_t kind, int from, const char *old, int to, const char *new, long (*act)(int, const char *, int, const char *, unsigned), unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    absolute_of(from, old, source);
    absolute_of(to, new, target);
    if (fails(NAME, target)) return -1;
    int result = (int)act(from, old, to, new, flags);
    if (result == 0) note(kind, -1, source, target, strlen(target), 0);
    return result;
}
static long do_rename(int a, const char *b, int c, const char *d, unsigned f) { return syscall(SYS_renameat2, a, b, c, d, f); }
static long do_link(int a, const char *b, int c, const char *d, unsigned f) { return syscall(SYS_linkat, a, b, c, d, f); }
int rename(const char *old, const char *new) { return two_names(J_RENAME, AT_FDCWD, old, AT_FDCWD, new, do_rename, 0); }
int renameat(int a, const char *old, int b, const char *new) { return two_names(J_RENAME, a, old, b, new, do_rename, 0); }
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) { return two_names(J_RENAME, a, old, b, new, do_rename, flags); }
int link(const char *old, const char *new) { return two_names(J_LINK, AT_FDCWD, old, AT_FDCWD, new, do_link, 0); }
int linkat(int a, const char *old, int b, const char *new, int flags) { return two_names(J_LINK, a, old, b, new, do_link, (unsigned)flags); }

int unlinkat(int folder, const char *path, int flags) {
    char whole[PATH_MAX];
    absolute_of(folder, path, whole);
    if (fails(NAME, whole)) return -1;
    int result = (int)syscall(SYS_unlinkat, folder, path, flags);
    if (result == 0) note(J_UNLINK, -1, whole, "", 0, 0);
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdirat(int folder, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    absolute_of(folder, path, whole);
    if (fails(NAME, whole)) return -1;
    int result = (int)syscall(SYS_mkdirat, folder, path, mode);
    if (result == 0) note(J_MKDIR, -1, whole, "", 0, 0);
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* ---- bytes */

static size_t length_of(int descriptor, size_t length, int *failed) {
    *failed = fails_fd(WRITE, descriptor);
    if (*failed && page->error == SHORT) { *failed = 0; return length > 1 ? length / 2 : length; }
    return length;
}
static int64_t place_of(int descriptor, ssize_t written) {
    int64_t place = syscall(SYS_lseek, descriptor, 0, SEEK_CUR);
    return place < 0 ? -1 : place - written;
}
ssize_t write(int descriptor, const void *data, size_t length) {
    int failed;
    length = length_of(descriptor, length, &failed);
    if (failed) return -1;
    ssize_t written = syscall(SYS_write, descriptor, data, length);
    if (written > 0 && journal >= 0) note(J_WRITE, descriptor, NULL, data, (size_t)written, place_of(descriptor, written));
    return written;
}
ssize_t pwrite(int descriptor, const void *data, size_t length, off_t place) {
    int failed;
    length = length_of(descriptor, length, &failed);
    if (failed) return -1;
    ssize_t written = syscall(SYS_pwrite64, descriptor, data, length, place);
    if (written > 0) note(J_WRITE, descriptor, NULL, data, (size_t)written, place);
    return written;
}
ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t place) { return pwrite(descriptor, data, length, place); }
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    if (count > 0 && fails_fd(WRITE, descriptor) && page->error != SHORT) return -1;
    if (journal < 0) return syscall(SYS_writev, descriptor, parts, count);
    return count > 0 ? write(descriptor, parts[0].iov_base, parts[0].iov_len) : 0;
}
ssize_t copy_file_range(int from, off64_t *from_place, int to, off64_t *to_place, size_t length, unsigned flags) {
    if (fails_fd(WRITE, to) && page->error != SHORT) return -1;
    if (journal >= 0) { errno = ENOSYS; return -1; }  /* the caller writes instead, and that is noted */
    return syscall(SYS_copy_file_range, from, from_place, to, to_place, length, flags);
}
ssize_t sendfile(int to, int from, off_t *place, size_t length) {
    if (fails_fd(WRITE, to) && page->error != SHORT) return -1;
    return syscall(SYS_sendfile, to, from, place, length);
}
ssize_t sendfile64(int to, int from, off64_t *place, size_t length) { return sendfile(to, from, (off_t *)place, length); }
int ftruncate(int descriptor, off_t length) {
    if (fails_fd(SIZE, descriptor)) return -1;
    int result = (int)syscall(SYS_ftruncate, descriptor, length);
    if (result == 0) note(J_TRUNCATE, descriptor, NULL, "", 0, length);
    return result;
}
int ftruncate64(int descriptor, off64_t length) { return ftruncate(descriptor, length); }
int truncate(const char *path, off_t length) {
    char whole[PATH_MAX];
    absolute_of(AT_FDCWD, path, whole);
    if (fails(SIZE, whole)) return -1;
    int result = (int)syscall(SYS_truncate, path, length);
    if (result == 0) note(J_TRUNCATE, -1, whole, "", 0, length);
    return result;
}
int truncate64(const char *path, off64_t length) { return truncate(path, length); }
int posix_fallocate(int descriptor, off_t place, off_t length) {
    if (fails_fd(SIZE, descriptor)) return errno;
    return syscall(SYS_fallocate, descriptor, 0, place, length) == 0 ? 0 : errno;
}
int posix_fallocate64(int descriptor, off64_t place, off64_t length) { return posix_fallocate(descriptor, place, length); }

int fsync(int descriptor) {
    if (fails_fd(SYNC, descriptor)) return -1;
    int result = (int)syscall(SYS_fsync, descriptor);
    if (result == 0) note(J_SYNC, descriptor, NULL, "", 0, 0);
    return result;
}
int fdatasync(int descriptor) {
    if (fails_fd(SYNC, descriptor)) return -1;
    int result = (int)syscall(SYS_fdatasync, descriptor);
    if (result == 0) note(J_SYNC, descriptor, NULL, "", 0, 0);
    return result;
}

/* ---- locks */

int flock(int descriptor, int how) {
    if (!(how & 8 /* LOCK_UN */) && fails_fd(LOCK, descriptor)) return -1;
    return (int)syscall(SYS_flock, descriptor, how);
}
static int control(int descriptor, int command, void *value) {
    int locks = command == F_SETLK || command == F_SETLKW || command == 37 /* F_OFD_SETLK */ || command == 38;
    if (locks && ((struct flock *)value)->l_type != F_UNLCK && fails_fd(LOCK, descriptor)) return -1;
    return (int)syscall(SYS_fcntl, descriptor, command, value);
}
int fcntl(int descriptor, int command, ...) {
    va_list rest; va_start(rest, command); void *value = va_arg(rest, void *); va_end(rest);
    return control(descriptor, command, value);
}
int fcntl64(int descriptor, int command, ...) {
    va_list rest; va_start(rest, command); void *value = va_arg(rest, void *); va_end(rest);
    return control(descriptor, command, value);
}

/* ---- the wall clock */

int clock_gettime(clockid_t clock, struct timespec *out) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int result = real(clock, out);
    int64_t offset = page ? atomic_load(&page->clock_offset_ns) : 0;
    if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t now = out->tv_sec * 1000000000LL + out->tv_nsec + offset;
        out->tv_sec = now / 1000000000LL;
        out->tv_nsec = now % 1000000000LL;
    }
    return result;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (zone) memset(zone, 0, sizeof(struct timezone));
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
