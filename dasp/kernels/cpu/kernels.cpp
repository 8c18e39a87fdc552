// The hot per-sample loops behind a plain C ABI: no libtorch, no Python, no OpenMP.
//
// Audio is rows x samples, contiguous, float32 or float64; coefficients, states and their gradients are float64.
// Every function returns 0, or 1 when memory ran out; no exception leaves this file.  `lanes.inc` holds the loops and is
// compiled once for each instruction set; `dispatch` picks one when the library is first used.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#define DASP_X86 1
#include <xmmintrin.h>
#endif

#if defined(_WIN32)
#define DASP_API extern "C" __declspec(dllexport)
#else
#define DASP_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

// Flushes denormals to zero while a kernel runs on this thread, and restores the thread's own mode afterwards:
// a filter that rings out into silence would otherwise run ten times slower.
class FlushDenormals {
 public:
#if defined(DASP_X86)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_ | (1ull << 24)));
  }
  ~FlushDenormals() { __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_)); }

 private:
  uint64_t saved_;
#else
  FlushDenormals() {}
#endif
};

// Runs task(i) for i in [0, count) on up to `threads` threads that live only during this call.  Which thread takes
// which task never changes a result.  A task that cannot get memory returns false.
template <typename Task>
int parallel(int64_t count, int threads, const Task& task) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  auto work = [&]() {
    FlushDenormals guard;
    for (int64_t i = next++; i < count; i = next++) {
      if (!task(i)) failed = true;
    }
  };
  std::vector<std::thread> extra;
  try {
    for (int64_t i = 1; i < threads && i < count; ++i) extra.emplace_back(work);
  } catch (const std::exception&) {
    // No more threads to be had: this one does the rest.
  }
  work();
  for (auto& thread : extra) thread.join();
  return failed ? 1 : 0;
}

struct SosfiltArgs {
  const void* x;        // rows, samples
  const double* sos;    // rows / share, sections, 5: b0 b1 b2 a1 a2
  const double* zi;     // rows, sections, 2
  void* y;              // rows, samples
  double* zf;           // rows, sections, 2
  const void* gy;       // rows, samples
  const double* gzf;    // rows, sections, 2
  void* gx;             // rows, samples
  double* gsos;         // rows, sections, 5; null where no gradient is wanted
  double* gzi;          // rows, sections, 2
  int64_t rows, samples, sections, share;
};

struct BallisticsArgs {
  const void* g;          // rows, samples
  const double* attack;   // rows
  const double* release;  // rows
  const double* zi;       // rows
  void* y;                // rows, samples
  double* zf;             // rows
  const void* gy;         // rows, samples
  const double* gzf;      // rows
  void* gg;               // rows, samples
  double* gattack;        // rows
  double* grelease;       // rows
  double* gzi;            // rows
  int64_t rows, samples;
};

struct RecurrenceArgs {
  const void* a;      // rows, samples
  const void* x;      // rows, samples
  const double* zi;   // rows
  void* y;            // rows, samples
  double* zf;         // rows
  const void* gy;     // rows, samples
  const double* gzf;  // rows
  void* ga;           // rows, samples
  void* gx;           // rows, samples
  double* gzi;        // rows
  int64_t rows, samples;
};

struct DynamicsArgs {
  const void* x;         // groups, channels, samples
  const double* curve;   // groups, 4: threshold, slope, knee, range, in natural-logarithm units
  const double* poles;   // groups, 2: while the gain falls, while it rises
  const double* makeup;  // groups, channels, natural-logarithm units
  const double* zi;      // groups
  void* y;               // groups, channels, samples
  double* zf;            // groups
  const void* gy;        // groups, channels, samples
  const double* gzf;     // groups
  void* gx;              // groups, channels, samples
  double* gcurve;        // groups, 4
  double* gpoles;        // groups, 2
  double* gmakeup;       // groups, channels
  double* gzi;           // groups
  int64_t rows, samples, channels, direction, mean;
};

}  // namespace

// One source file, one copy of the loops for each instruction set.
#if defined(DASP_X86) && defined(__GNUC__) && !defined(__clang__)
#define DASP_MULTIVERSION 1
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")
#define DASP_ISA avx512
#define DASP_WIDTH 8
#include "lanes.inc"
#undef DASP_ISA
#undef DASP_WIDTH
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define DASP_ISA avx2
#define DASP_WIDTH 4
#include "lanes.inc"
#undef DASP_ISA
#undef DASP_WIDTH
#pragma GCC pop_options
#elif defined(DASP_X86) && defined(__clang__)
#define DASP_MULTIVERSION 1
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), apply_to = function)
#define DASP_ISA avx512
#define DASP_WIDTH 8
#include "lanes.inc"
#undef DASP_ISA
#undef DASP_WIDTH
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define DASP_ISA avx2
#define DASP_WIDTH 4
#include "lanes.inc"
#undef DASP_ISA
#undef DASP_WIDTH
#pragma clang attribute pop
#endif
#define DASP_ISA baseline
#define DASP_WIDTH 2
#include "lanes.inc"
#undef DASP_ISA
#undef DASP_WIDTH

namespace {

enum Isa { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

int detect() {
  int best = kBaseline;
#if defined(DASP_MULTIVERSION)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = kAvx2;
  if (best == kAvx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    best = kAvx512;
  }
#endif
  // DASP_CPU_ISA=baseline|avx2|avx512 narrows the choice; it never widens it.
  if (const char* wanted = std::getenv("DASP_CPU_ISA")) {
    if (!std::strcmp(wanted, "baseline")) best = kBaseline;
    if (!std::strcmp(wanted, "avx2") && best > kAvx2) best = kAvx2;
  }
  return best;
}

int isa() {
  static const int chosen = detect();
  return chosen;
}

// Lanes per task: as wide as the machine allows while every thread still has a task, and no wider than the rows need.
// Two lanes take no longer than one, whose scalar code a compiler may round otherwise.
int lanes_for(int64_t rows, int threads, int width) {
  int lanes = width;
  while (lanes > 2 && (lanes / 2 >= rows || (rows + lanes - 1) / lanes < threads)) lanes /= 2;
  return lanes;
}

template <typename Args, typename Kernel>
int run(const Args& args, int threads, const Kernel& kernel) {
  if (args.rows == 0) return 0;
  const int widths[] = {baseline::kWidth, 4, 8};
  const int lanes = lanes_for(args.rows, threads, widths[isa()]);
  const int64_t tasks = (args.rows + lanes - 1) / lanes;
  return parallel(tasks, threads, [&](int64_t i) { return kernel(args, i * lanes, lanes); });
}

}  // namespace

#if defined(DASP_MULTIVERSION)
#define DASP_DISPATCH(function, args, first, lanes)                \
  (isa() == kAvx512 ? avx512::function(args, first, lanes)         \
   : isa() == kAvx2 ? avx2::function(args, first, lanes)           \
                    : baseline::function(args, first, lanes))
#else
#define DASP_DISPATCH(function, args, first, lanes) baseline::function(args, first, lanes)
#endif

#define DASP_EXPORT(name, Args)                                                                       \
  DASP_API int dasp_##name##_f32(const Args* args, int threads) {                                     \
    return run(*args, threads, [](const Args& a, int64_t first, int lanes) {                          \
      return DASP_DISPATCH(name<float>, a, first, lanes);                                             \
    });                                                                                               \
  }                                                                                                   \
  DASP_API int dasp_##name##_f64(const Args* args, int threads) {                                     \
    return run(*args, threads, [](const Args& a, int64_t first, int lanes) {                          \
      return DASP_DISPATCH(name<double>, a, first, lanes);                                            \
    });                                                                                               \
  }

DASP_EXPORT(sosfilt, SosfiltArgs)
DASP_EXPORT(sosfilt_backward, SosfiltArgs)
DASP_EXPORT(ballistics, BallisticsArgs)
DASP_EXPORT(ballistics_backward, BallisticsArgs)
DASP_EXPORT(dynamics, DynamicsArgs)
DASP_EXPORT(dynamics_backward, DynamicsArgs)
DASP_EXPORT(recurrence, RecurrenceArgs)
DASP_EXPORT(recurrence_backward, RecurrenceArgs)

DASP_API int dasp_abi_version() { return 2; }

DASP_API const char* dasp_instruction_set() {
  static const char* const names[] = {"baseline", "avx2", "avx512"};
  return names[isa()];
}
