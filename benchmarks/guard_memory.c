/* Every block that torch allocates ends where a page begins that can't be touched; what was freed can't be touched either.
 *
 * Preloaded by fuzz_graph.py. Blocks lie in one reserved stretch of addresses, one after the other, and no address is used twice.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define RESERVED ((size_t)1 << 44)

extern void __libc_free(void *);
static char *first;
static _Atomic size_t used;

__attribute__((constructor)) static void reserve(void) {
    void *got = mmap(NULL, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    first = got == MAP_FAILED ? NULL : got;
}

int posix_memalign(void **made, size_t alignment, size_t size) {
    if (first == NULL) {
        *made = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
        return *made == NULL ? ENOMEM : 0;
    }
    size_t whole = (size + PAGE - 1) / PAGE * PAGE + (size == 0 ? PAGE : 0);
    size_t at = atomic_fetch_add(&used, whole + 2 * PAGE);
    if (at + whole + 2 * PAGE > RESERVED) return ENOMEM;
    char *start = first + at + PAGE; /* its size is noted in the page before, which then is closed */
    if (mprotect(start - PAGE, whole + PAGE, PROT_READ | PROT_WRITE)) return ENOMEM;
    *(size_t *)(start - PAGE) = whole;
    if (mprotect(start - PAGE, PAGE, PROT_READ)) return ENOMEM;
    *made = start + (whole - size) / 16 * 16; /* sixteen bytes, not sixty-four: less is left over at the end */
    return 0;
}

void free(void *block) {
    char *at = block;
    if (first == NULL || at < first || at >= first + RESERVED) {
        __libc_free(block);
        return;
    }
    int kept = errno;
    char *start = first + ((size_t)(at - first) / PAGE) * PAGE;
    while (*(size_t *)(start - PAGE) == 0) start -= PAGE;
    size_t whole = *(size_t *)(start - PAGE);
    madvise(start - PAGE, whole + PAGE, MADV_DONTNEED);
    mprotect(start - PAGE, whole + PAGE, PROT_NONE);
    errno = kept;
}
