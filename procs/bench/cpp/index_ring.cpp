// The peer that our ring is measured against: a single-producer single-consumer ring of free-running indices on cache
// lines of their own, each side keeping a private copy of the other's index and looking again only when it says "full" or
// "empty". This is the design that the field takes as its standard (rigtorp's SPSCQueue, boost's spsc_queue). Waiting is
// `pause`. Slots are 64 or 128 bytes, all words payload; the last word holds the record's number, as in our ring, so
// that both sides check the same bytes.
//
// Built at bench time: g++ -O3 -march=native -std=c++17 -shared -fPIC. Not part of the product.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <immintrin.h>
#include <x86intrin.h>

namespace {

constexpr uint64_t kFactor = 0x9E3779B97F4A7C15ull;

struct Ring {
    alignas(64) std::atomic<uint64_t> tail;
    alignas(64) uint64_t head_seen;  // the writer's private copy of head
    alignas(64) std::atomic<uint64_t> head;
    alignas(64) uint64_t tail_seen;  // the reader's private copy of tail
    alignas(64) std::atomic<uint64_t> go;
    alignas(4096) unsigned char slots[1];
};

template <size_t W>
struct alignas(64) Slot {
    uint64_t word[W];
};

template <size_t W>
Slot<W>* slots_of(Ring* ring) {
    return reinterpret_cast<Slot<W>*>(ring->slots);
}

template <size_t W>
inline void fill(Slot<W>& slot, uint64_t n) {
    const uint64_t base = n * kFactor;
    for (size_t k = 0; k + 1 < W; ++k) slot.word[k] = base + k;
    slot.word[W - 1] = n + 1;
}

template <size_t W>
inline uint64_t wrong(const Slot<W>& slot, uint64_t n) {
    const uint64_t base = n * kFactor;
    uint64_t bits = slot.word[W - 1] ^ (n + 1);
    for (size_t k = 0; k + 1 < W; ++k) bits |= slot.word[k] ^ (base + k);
    return bits != 0;
}

// How long a side that finds the ring full or empty waits before it looks again.
inline void rest(uint64_t pauses) {
    for (uint64_t i = 0; i < pauses; ++i) _mm_pause();
}

template <size_t W>
inline void push(Ring* ring, uint64_t mask, uint64_t n, uint64_t pauses = 1) {
    const uint64_t tail = ring->tail.load(std::memory_order_relaxed);
    while (tail - ring->head_seen > mask) {
        ring->head_seen = ring->head.load(std::memory_order_acquire);
        if (tail - ring->head_seen > mask) rest(pauses);
    }
    fill<W>(slots_of<W>(ring)[tail & mask], n);
    ring->tail.store(tail + 1, std::memory_order_release);
}

template <size_t W>
inline uint64_t pop(Ring* ring, uint64_t mask, uint64_t n, uint64_t pauses = 1) {
    const uint64_t head = ring->head.load(std::memory_order_relaxed);
    while (head == ring->tail_seen) {
        ring->tail_seen = ring->tail.load(std::memory_order_acquire);
        if (head == ring->tail_seen) rest(pauses);
    }
    const uint64_t bad = wrong<W>(slots_of<W>(ring)[head & mask], n);
    ring->head.store(head + 1, std::memory_order_release);
    return bad;
}

int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

template <size_t W>
int64_t produce(Ring* ring, uint64_t capacity, uint64_t count, uint64_t pauses) {
    while (!ring->go.load(std::memory_order_acquire)) _mm_pause();
    const int64_t start = now_ns();
    for (uint64_t n = 0; n < count; ++n) push<W>(ring, capacity - 1, n, pauses);
    return start;
}

template <size_t W>
int64_t consume(Ring* ring, uint64_t capacity, uint64_t count, uint64_t pauses, int64_t* bad) {
    uint64_t errors = 0;
    ring->go.store(1, std::memory_order_release);
    for (uint64_t n = 0; n < count; ++n) errors += pop<W>(ring, capacity - 1, n, pauses);
    *bad = static_cast<int64_t>(errors);
    return now_ns();
}

// The same ring with both indices published once in `batch` records (and when there is nothing more to do).
template <size_t W>
int64_t produce_batched(Ring* ring, uint64_t capacity, uint64_t count, uint64_t batch) {
    const uint64_t mask = capacity - 1;
    while (!ring->go.load(std::memory_order_acquire)) _mm_pause();
    const int64_t start = now_ns();
    uint64_t n = 0;
    while (n < count) {
        uint64_t upto = n + batch < count ? n + batch : count;
        while (upto - ring->head_seen > capacity) {
            ring->head_seen = ring->head.load(std::memory_order_acquire);
            if (upto - ring->head_seen > capacity) _mm_pause();
        }
        for (; n < upto; ++n) fill<W>(slots_of<W>(ring)[n & mask], n);
        ring->tail.store(n, std::memory_order_release);
    }
    return start;
}

template <size_t W>
int64_t consume_batched(Ring* ring, uint64_t capacity, uint64_t count, uint64_t batch, int64_t* bad) {
    const uint64_t mask = capacity - 1;
    uint64_t errors = 0, n = 0;
    ring->go.store(1, std::memory_order_release);
    while (n < count) {
        while (n == ring->tail_seen) {
            ring->tail_seen = ring->tail.load(std::memory_order_acquire);
            if (n == ring->tail_seen) _mm_pause();
        }
        uint64_t upto = ring->tail_seen - n < batch ? ring->tail_seen : n + batch;
        for (; n < upto; ++n) errors += wrong<W>(slots_of<W>(ring)[n & mask], n);
        ring->head.store(n, std::memory_order_release);
    }
    *bad = static_cast<int64_t>(errors);
    return now_ns();
}

template <size_t W>
int64_t ping(Ring* out, Ring* back, uint64_t capacity, uint64_t count, int64_t* cycles) {
    uint64_t errors = 0;
    while (!out->go.load(std::memory_order_acquire)) _mm_pause();
    for (uint64_t n = 0; n < count; ++n) {
        const uint64_t before = __rdtsc();
        push<W>(out, capacity - 1, n);
        errors += pop<W>(back, capacity - 1, n);
        cycles[n] = static_cast<int64_t>(__rdtsc() - before);
    }
    return static_cast<int64_t>(errors);
}

template <size_t W>
int64_t pong(Ring* out, Ring* back, uint64_t capacity, uint64_t count) {
    uint64_t errors = 0;
    out->go.store(1, std::memory_order_release);
    for (uint64_t n = 0; n < count; ++n) {
        errors += pop<W>(out, capacity - 1, n);
        push<W>(back, capacity - 1, n);
    }
    return static_cast<int64_t>(errors);
}

template <size_t W>
int64_t alone(Ring* ring, uint64_t capacity, uint64_t count, int64_t* bad) {
    uint64_t errors = 0;
    const int64_t start = now_ns();
    for (uint64_t n = 0; n < count; ++n) {
        push<W>(ring, capacity - 1, n);
        errors += pop<W>(ring, capacity - 1, n);
    }
    *bad = static_cast<int64_t>(errors);
    return now_ns() - start;
}

}  // namespace

#define SIZES(W)                                                                                                       \
    extern "C" int64_t produce_##W(Ring* r, uint64_t c, uint64_t n, uint64_t p) { return produce<W>(r, c, n, p); }     \
    extern "C" int64_t consume_##W(Ring* r, uint64_t c, uint64_t n, uint64_t p, int64_t* bad) {                        \
        return consume<W>(r, c, n, p, bad);                                                                            \
    }                                                                                                                  \
    extern "C" int64_t produce_batched_##W(Ring* r, uint64_t c, uint64_t n, uint64_t b) {                              \
        return produce_batched<W>(r, c, n, b);                                                                         \
    }                                                                                                                  \
    extern "C" int64_t consume_batched_##W(Ring* r, uint64_t c, uint64_t n, uint64_t b, int64_t* bad) {                \
        return consume_batched<W>(r, c, n, b, bad);                                                                    \
    }                                                                                                                  \
    extern "C" int64_t ping_##W(Ring* o, Ring* b, uint64_t c, uint64_t n, int64_t* t) { return ping<W>(o, b, c, n, t); } \
    extern "C" int64_t pong_##W(Ring* o, Ring* b, uint64_t c, uint64_t n) { return pong<W>(o, b, c, n); }              \
    extern "C" int64_t alone_##W(Ring* r, uint64_t c, uint64_t n, int64_t* bad) { return alone<W>(r, c, n, bad); }

SIZES(8)
SIZES(16)

extern "C" uint64_t ring_bytes(uint64_t capacity, uint64_t width) { return offsetof(Ring, slots) + capacity * width * 8; }
