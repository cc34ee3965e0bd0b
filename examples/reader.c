/* Reads a shmcam ring from C: nothing but the layout of shm_ring/layout.py, no library.
 *   cc -O2 -o reader examples/reader.c && ./reader /shmcam.cam0.main 100
 * Prints frame id, bytes and a checksum of each frame that was read whole. */
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct segment {                     /* SEGMENT_HEADER, the first page */
    uint32_t magic, version, header_bytes, slot_header_bytes, slots, state, generation, takeovers;
    uint64_t payload_bytes, slot_stride, payload_offset, first_sequence;
    _Atomic uint32_t head;           /* published frames; also the futex word */
};

struct slot {                        /* SLOT_HEADER */
    _Atomic uint32_t word;           /* 2n + 1 while frame n is written, 2n + 2 when it is there */
    uint32_t pad;
    uint64_t sequence, frame_id;
    int64_t captured_ns, captured_utc_ns, published_ns;
    uint64_t used_bytes;
};

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: reader /PREFIX.CAMERA.STREAM FRAMES\n"), 2;
    int fd = shm_open(argv[1], O_RDONLY, 0);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) || about.st_size < 4096) return perror(argv[1]), 1;
    uint8_t *base = mmap(NULL, about.st_size, PROT_READ, MAP_SHARED, fd, 0);
    struct segment *ring = (struct segment *)base;
    if (base == MAP_FAILED || ring->magic != 0x52474D53 || ring->version != 1 || !ring->slots ||
        ring->slot_header_bytes != 256 || 4096 + 256ull * ring->slots > ring->payload_offset ||
        ring->payload_offset + ring->slots * ring->slot_stride != (uint64_t)about.st_size ||
        ring->payload_bytes > ring->slot_stride)
        return fprintf(stderr, "%s: not a ring of version 1\n", argv[1]), 1;

    uint32_t seen = atomic_load_explicit(&ring->head, memory_order_acquire);
    for (int left = atoi(argv[2]); left > 0;) {
        uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (head == seen) {          /* sleep until head changes, half a second at most */
            if (ring->state == 2) break; /* retired: open the name again */
            struct timespec limit = {0, 500000000};
            syscall(SYS_futex, &ring->head, FUTEX_WAIT, seen, &limit, NULL, 0);
            continue;
        }
        uint32_t n = head - 1;       /* the newest; slots must be a power of two here, because n wraps at 2^32 */
        seen = head;
        struct slot *slot = (struct slot *)(base + 4096 + (n % ring->slots) * ring->slot_header_bytes);
        if (atomic_load_explicit(&slot->word, memory_order_relaxed) != 2 * n + 2) continue;
        atomic_thread_fence(memory_order_acquire);                              /* SYNC POINT C */
        uint64_t id = slot->frame_id, used = slot->used_bytes, sum = 0;
        const uint8_t *payload = base + ring->payload_offset + (n % ring->slots) * ring->slot_stride;
        for (uint64_t i = 0; i < used && i < ring->payload_bytes; i++) sum += payload[i];
        atomic_thread_fence(memory_order_acquire);                              /* SYNC POINT D */
        if (atomic_load_explicit(&slot->word, memory_order_relaxed) != 2 * n + 2) continue; /* overwritten: discard */
        printf("%llu %llu %llu\n", (unsigned long long)id, (unsigned long long)used, (unsigned long long)sum);
        left--;
    }
    return 0;
}
