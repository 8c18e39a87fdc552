// The hot per-sample loops behind a plain C ABI: no libtorch, no Python, nothing linked.
//
// Audio is rows x samples, contiguous, float32 or float64; coefficients, states and their gradients are float64.
// Every function returns 0, or 1 when memory ran out; no exception leaves this file.  `lanes.inc` holds the loops and is
// compiled once for each instruction set; `dispatch` picks one when the library is first used.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#define DASP_X86 1
#include <immintrin.h>
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

// Runs work(data) on this thread and threads - 1 others, and waits for all.  Where torch has brought GNU OpenMP's runtime
// into the process, or one that offers its entry point, the others are its threads: right after an operation of torch they
// spin and hold the other cores, and threads of our own would wait for theirs.  A forked child is given one thread.
void run_on_threads(int threads, void (*work)(void*), void* data) {
#if defined(__linux__)
  typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);
  static const Parallel torch_threads = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  if (threads > 1 && torch_threads) {
    torch_threads(work, data, static_cast<unsigned>(threads), 0);
    return;
  }
#endif
  std::vector<std::thread> others;
  try {
    for (int i = 1; i < threads; ++i) others.emplace_back(work, data);
  } catch (const std::exception&) {
    // No more threads to be had: this one does the rest.
  }
  work(data);
  for (auto& thread : others) thread.join();
}

// Runs first(i) for i in [0, firsts), then middle() once, then second(i) for i in [0, seconds), on up to `threads`
// threads.  Which thread takes which task never changes a result.  What cannot get memory returns false.
template <typename First, typename Middle, typename Second>
int parallel(int threads, int64_t firsts, const First& first, const Middle& middle, int64_t seconds, const Second& second) {
  std::atomic<int64_t> next_first{0}, next_second{0}, done{0};
  std::atomic<bool> failed{false}, led{false}, joined{false};
  auto work = [&] {
    FlushDenormals guard;
    const bool leads = !led.exchange(true);
    for (int64_t i = next_first++; i < firsts; i = next_first++) {
      if (!first(i)) failed = true;
      ++done;
    }
    if (leads) {
      while (done < firsts) std::this_thread::yield();
      if (!failed && !middle()) failed = true;
      joined = true;
    }
    while (!joined) std::this_thread::yield();
    if (failed) return;
    for (int64_t i = next_second++; i < seconds; i = next_second++) {
      if (!second(i)) failed = true;
    }
  };
  typedef decltype(work) Work;
  run_on_threads(threads < seconds ? threads : static_cast<int>(seconds), [](void* data) { (*static_cast<Work*>(data))(); }, &work);
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
  double* checkpoints;  // rows, blocks, sections, 2: the states at the start of every block; null where not wanted
  int64_t rows, samples, sections, share;
};

// A stretch of every row, cut into pieces of `samples` that are filtered side by side as if they were rows.
struct SosfiltTask : SosfiltArgs {
  int64_t total, offset, pieces;

  explicit SosfiltTask(const SosfiltArgs& args) : SosfiltArgs(args), total(args.samples), offset(0), pieces(1) {}
  int64_t filter(int64_t row) const { return row / pieces / share; }
  int64_t sample(int64_t row) const { return offset + row % pieces * samples; }
  int64_t element(int64_t row) const { return row / pieces * total + sample(row); }
};

struct SvfArgs {
  const void* x;               // rows, samples
  const double* coefficients;  // rows / share, frames, sections, 5: g d m0 m1 m2
  const double* zi;            // rows, sections, 2
  void* y;                     // rows, samples
  double* zf;                  // rows, sections, 2
  const void* gy;              // rows, samples
  const double* gzf;           // rows, sections, 2
  void* gx;                    // rows, samples
  double* gcoefficients;       // rows, frames, sections, 5; null where no gradient is wanted
  double* gzi;                 // rows, sections, 2
  double* checkpoints;         // rows, blocks, sections, 2: the states at the start of every block; null where not wanted
  int64_t rows, samples, sections, share, frames;
};

struct BallisticsArgs {
  const void* g;          // rows, samples
  const double* attack;   // rows; rows, samples where poles vary, as their gradients are
  const double* release;  // the same
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
  double* checkpoints;   // groups, blocks: the smoothed gain before every block; null where not wanted
  int64_t rows, samples, channels, direction, mean;
};

struct BiquadsArgs {
  const double* frequency;  // rows, bands: Hz
  const double* gain;       // rows, bands: dB
  const double* q;          // rows, bands
  const double* limits;     // radians per Hz, lowest and highest frequency, lowest and highest q
  double* sos;              // rows, bands, 5: b0 b1 b2 a1 a2
  double* slopes;           // rows, bands, 5, 3: derivatives by frequency, gain and q; null where not wanted
  int64_t rows, bands;
  int64_t kinds[1];         // one for each band, in the order of `design`
};

struct BiquadsGradientArgs {
  const double* gsos;    // rows, bands, 5
  const double* slopes;  // rows, bands, 5, 3
  double* gradients[3];  // rows, bands
  int64_t rows, bands;
};

struct MixArgs {
  const void* x;        // rows, inputs, samples
  const double* gains;  // rows, outputs, inputs
  void* y;              // rows, outputs, samples
  const void* gy;       // rows, outputs, samples
  void* gx;             // rows, inputs, samples
  double* ggains;       // rows, stretches, outputs, inputs
  int64_t rows, samples, inputs, outputs;
};

struct PrototypesArgs {
  const double* controls[3];  // rows, bands: Hz, dB, q
  const double* limits;       // half turns per Hz, lowest and highest frequency, lowest and highest q
  double* coefficients;       // rows, bands, 5: g d m0 m1 m2; their gradients on the way back
  double* gradients[3];       // rows, bands
  int64_t rows, bands;
  int64_t kinds[1];           // one for each band, in the order of `design`
};

struct GainComputerArgs {
  const double* controls;  // rows, 7: threshold, ratio, knee, range, attack, release, makeup, in dB and ms
  const double* limits;    // samples per ms, nepers per dB, highest threshold, highest ratio, shortest time in samples
  double* curve;           // rows, 4
  double* poles;           // rows, 2
  double* makeup;          // rows
  double* slopes;          // rows, 7: the derivative of what each control is brought to; null where not wanted
  int64_t rows, direction;
};

struct GainComputerGradientArgs {
  const double* gcurve;   // rows, 4
  const double* gpoles;   // rows, 2
  const double* gmakeup;  // rows
  const double* slopes;   // rows, 7
  double* gcontrols;      // rows, 7
  int64_t rows, direction;
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
// Two lanes take no longer than one, whose scalar code a compiler may round otherwise; what has vectors along time takes
// them as one or two rows.
int lanes_for(int64_t rows, int threads, int width) {
  int lanes = width;
  while (lanes > 2 && (lanes / 2 >= rows || (rows + lanes - 1) / lanes < threads)) lanes /= 2;
  return lanes;
}

int lanes_of(int64_t rows, int threads) {
  const int widths[] = {baseline::kWidth, 4, 8};
  return lanes_for(rows, threads, widths[isa()]);
}

template <typename Args, typename Kernel>
int run(const Args& args, int threads, const Kernel& kernel) {
  if (args.rows == 0) return 0;
  const int lanes = lanes_of(args.rows, threads);
  const auto nothing = [](int64_t = 0) { return true; };
  return parallel(threads, 0, nothing, nothing, (args.rows + lanes - 1) / lanes,
                  [&](int64_t i) { return kernel(args, i * lanes, lanes); });
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

namespace {

constexpr int64_t kPieceBlock = baseline::kBlock;  // checkpoints lie this far apart
constexpr int64_t kShortestPiece = 2048;  // shorter ones cost more to join than they save
constexpr int64_t kMostPieces = 64;       // of all rows together
constexpr int64_t kMostSections = 16;   // the transition of more costs more than it saves

// Pieces per row, enough for some threads; 1 where rows fill the lanes by themselves.  The number of threads is not
// asked for, so that it changes no result.
int64_t pieces_for(const SosfiltArgs& args) {
  const int64_t fitting = kMostPieces / args.rows, long_enough = args.samples / kShortestPiece;
  const int64_t pieces = fitting < long_enough ? fitting : long_enough;
  return args.rows >= 8 || pieces < 4 || args.sections > kMostSections ? 1 : pieces;
}

#if defined(DASP_MULTIVERSION)
#define DASP_CHOOSE(function) (isa() == kAvx512 ? avx512::function : isa() == kAvx2 ? avx2::function : baseline::function)
#else
#define DASP_CHOOSE(function) baseline::function
#endif

// The states between pieces, from what each piece alone leaves behind: s' = A^length s + alone, or backwards in time
// with the transpose.  `between[piece]` is the state with which it starts; the last one is returned in `state`.
void join(const SosfiltArgs& args, int64_t pieces, int64_t length, bool backwards, const double* alone, double* between,
          double* state) {
  const int64_t n = 2 * args.sections;
  std::vector<double> memory(6 * n * n), columns(2 * n * n), next(2 * n);
  const double* power = nullptr;
  for (int64_t row = 0; row < args.rows; ++row) {
    if (row % args.share == 0) {
      const double* sos = args.sos + row / args.share * args.sections * 5;
      power = DASP_CHOOSE(transition)(sos, args.sections, length, memory.data());
      for (int64_t i = 0; i < 2 * n * n; ++i) {
        const int64_t part = i / (n * n) * n * n, j = i % (n * n) / n, k = i % n;
        columns[part + k * n + j] = power[i];
      }
    }
    double* s = state + row * n;
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t piece = row * pieces + (backwards ? pieces - 1 - i : i);
      std::memcpy(between + piece * n, s, n * sizeof(double));
      DASP_CHOOSE(advance)(backwards ? power : columns.data(), s, alone + piece * n, next.data(), next.data() + n, n);
      std::memcpy(s, next.data(), n * sizeof(double));
    }
  }
}

template <typename T>
bool sosfilt_lanes(const SosfiltTask& task, int64_t first, int lanes) {
  return DASP_DISPATCH(sosfilt<T>, task, first, lanes);
}

template <typename T>
bool sosfilt_backward_lanes(const SosfiltTask& task, int64_t first, int lanes) {
  return DASP_DISPATCH(sosfilt_backward<T>, task, first, lanes);
}

// What is left of every row behind its pieces.
SosfiltTask remainder(const SosfiltArgs& args, const SosfiltTask& task) {
  SosfiltTask last(args);
  last.offset = task.pieces * task.samples;
  last.samples = args.samples - last.offset;
  return last;
}

SosfiltTask cut(const SosfiltArgs& args, int64_t pieces) {
  SosfiltTask task(args);
  task.pieces = pieces;
  // An odd number of blocks: pieces a power of two apart would compete for the same lines of the cache.
  task.samples = ((args.samples / pieces / kPieceBlock - 1) | 1) * kPieceBlock;
  task.rows = args.rows * pieces;
  return task;
}

// Runs `alone` over the pieces from rest, joins what they leave behind, and runs `task` from the joined states.
template <typename Kernel>
int run_pieces(const SosfiltTask& alone, const SosfiltTask& task, int threads, const Kernel& kernel,
               const std::function<void()>& join_pieces) {
  const int lanes = lanes_of(task.rows, threads);
  const int64_t count = (task.rows + lanes - 1) / lanes;
  return parallel(
      threads, count, [&](int64_t i) { return kernel(alone, i * lanes, lanes); },
      [&] {
        try {
          join_pieces();
        } catch (const std::bad_alloc&) {
          return false;
        }
        return true;
      },
      count, [&](int64_t i) { return kernel(task, i * lanes, lanes); });
}

template <typename T>
int sosfilt(const SosfiltArgs& args, int threads) {
  const int64_t pieces = pieces_for(args), n = 2 * args.sections;
  // Every element is written: there is room for one or two blocks more than there are.
  const int64_t room = args.samples / kPieceBlock + 2, used = (args.samples + kPieceBlock - 1) / kPieceBlock;
  for (int64_t row = 0; args.checkpoints && row < args.rows; ++row) {
    std::memset(args.checkpoints + (row * room + used) * n, 0, (room - used) * n * sizeof(double));
  }
  if (pieces == 1) return run(SosfiltTask(args), threads, sosfilt_lanes<T>);
  SosfiltTask task = cut(args, pieces), alone = task, last = remainder(args, task);
  std::vector<double> rest(task.rows * n), left(task.rows * n), start(task.rows * n), end(task.rows * n);
  std::vector<double> state(args.zi, args.zi + args.rows * n);
  alone.zi = rest.data();
  alone.zf = left.data();
  alone.y = nullptr;
  alone.checkpoints = nullptr;
  task.zi = start.data();
  task.zf = end.data();
  last.zi = state.data();
  if (run_pieces(alone, task, threads, sosfilt_lanes<T>,
                 [&] { join(args, pieces, task.samples, false, left.data(), start.data(), state.data()); })) {
    return 1;
  }
  for (int64_t row = 0; row < args.rows; ++row) {
    std::memcpy(&state[row * n], &end[((row + 1) * pieces - 1) * n], n * sizeof(double));
  }
  return run(last, 1, sosfilt_lanes<T>);
}

template <typename T>
int sosfilt_backward(const SosfiltArgs& args, int threads) {
  const int64_t pieces = pieces_for(args), n = 2 * args.sections, width = 5 * args.sections;
  if (pieces == 1) return run(SosfiltTask(args), threads, sosfilt_backward_lanes<T>);
  SosfiltTask task = cut(args, pieces), alone = task, last = remainder(args, task);
  std::vector<double> rest(task.rows * n), left(task.rows * n), end(task.rows * n), start(task.rows * n);
  std::vector<double> state(args.rows * n), gsos(args.gsos ? task.rows * width : 0);
  last.gzi = state.data();
  alone.gzf = rest.data();
  alone.gzi = left.data();
  alone.gx = nullptr;
  alone.gsos = nullptr;
  task.gzf = end.data();
  task.gzi = start.data();
  task.gsos = args.gsos ? gsos.data() : nullptr;
  if (run(last, 1, sosfilt_backward_lanes<T>)) return 1;
  if (run_pieces(alone, task, threads, sosfilt_backward_lanes<T>,
                 [&] { join(args, pieces, task.samples, true, left.data(), end.data(), state.data()); })) {
    return 1;
  }
  for (int64_t row = 0; row < args.rows; ++row) {
    std::memcpy(args.gzi + row * n, &start[row * pieces * n], n * sizeof(double));
    for (int64_t piece = row * pieces; args.gsos && piece < (row + 1) * pieces; ++piece) {
      for (int64_t i = 0; i < width; ++i) args.gsos[row * width + i] += gsos[piece * width + i];
    }
  }
  return 0;
}

// A std::vector that finds no memory says so to the caller, and not as an exception.
template <typename Work>
int guarded(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

#define DASP_EXPORT_SOSFILT(name)                                              \
  DASP_API int dasp_##name##_f32(const SosfiltArgs* args, int threads) {       \
    return args->rows ? guarded([&] { return name<float>(*args, threads); }) : 0;  \
  }                                                                            \
  DASP_API int dasp_##name##_f64(const SosfiltArgs* args, int threads) {       \
    return args->rows ? guarded([&] { return name<double>(*args, threads); }) : 0; \
  }

DASP_EXPORT_SOSFILT(sosfilt)
DASP_EXPORT_SOSFILT(sosfilt_backward)
namespace {

// A number and its derivatives by frequency, gain and q.
struct Dual {
  double v, d[3];
  Dual(double value = 0.0) : v(value), d{0.0, 0.0, 0.0} {}
  // f(x) with f(x.v) = value and f'(x.v) = slope.
  static Dual of(const Dual& x, double value, double slope) {
    Dual r(value);
    for (int i = 0; i < 3; ++i) r.d[i] = slope * x.d[i];
    return r;
  }
  Dual operator-() const { return of(*this, -v, -1.0); }
  friend Dual operator+(const Dual& a, const Dual& b) { return mix(a, b, a.v + b.v, 1.0, 1.0); }
  friend Dual operator-(const Dual& a, const Dual& b) { return mix(a, b, a.v - b.v, 1.0, -1.0); }
  friend Dual operator*(const Dual& a, const Dual& b) { return mix(a, b, a.v * b.v, b.v, a.v); }
  friend Dual operator/(const Dual& a, const Dual& b) { return mix(a, b, a.v / b.v, 1.0 / b.v, -a.v / (b.v * b.v)); }

 private:
  static Dual mix(const Dual& a, const Dual& b, double value, double by_a, double by_b) {
    Dual r(value);
    for (int i = 0; i < 3; ++i) r.d[i] = by_a * a.d[i] + by_b * b.d[i];
    return r;
  }
};

// The control number `which`; beyond its limits it acts as clamped, and has no derivative.
Dual control(double value, int which, double low, double high) {
  Dual r(value < low ? low : value > high ? high : value);
  r.d[which] = value >= low && value <= high ? 1.0 : 0.0;
  return r;
}

// b0 b1 b2 a0 a1 a2 of the Audio EQ Cookbook: lowpass, highpass, bandpass, notch, allpass, peaking, low shelf, high shelf.
void design(int64_t kind, const Dual& cosine, const Dual& alpha, const Dual& root, const Dual& versine, Dual* c) {
  c[3] = Dual(1.0) + alpha;
  c[4] = Dual(-2.0) * cosine;
  c[5] = Dual(1.0) - alpha;
  switch (kind) {
    case 0:
      c[0] = c[2] = Dual(0.5) * versine;
      c[1] = versine;
      return;
    case 1:
      c[0] = c[2] = Dual(0.5) * (Dual(1.0) + cosine);
      c[1] = -(Dual(1.0) + cosine);
      return;
    case 2:
      c[0] = alpha;
      c[1] = Dual(0.0);
      c[2] = -alpha;
      return;
    case 3:
      c[0] = c[2] = Dual(1.0);
      c[1] = c[4];
      return;
    case 4:
      c[0] = c[5];
      c[1] = c[4];
      c[2] = c[3];
      return;
    case 5:
      c[0] = Dual(1.0) + alpha * root;
      c[1] = c[4];
      c[2] = Dual(1.0) - alpha * root;
      c[3] = Dual(1.0) + alpha / root;
      c[5] = Dual(1.0) - alpha / root;
      return;
    default: {
      // The high shelf is the low shelf mirrored in frequency: the cosine changes its sign, and so do b1 and a1.
      const Dual mirror(kind == 6 ? 1.0 : -1.0), m = mirror * cosine;
      const Dual plus = root + Dual(1.0), minus = root - Dual(1.0), half = std::sqrt(root.v);
      const Dual slope = Dual(2.0) * Dual::of(root, half.v, 0.5 / half.v) * alpha;
      c[0] = root * (plus - minus * m + slope);
      c[1] = mirror * Dual(2.0) * root * (minus - plus * m);
      c[2] = root * (plus - minus * m - slope);
      c[3] = plus + minus * m + slope;
      c[4] = mirror * Dual(-2.0) * (minus + plus * m);
      c[5] = plus + minus * m - slope;
    }
  }
}

}  // namespace

DASP_API int dasp_biquads_f64(const BiquadsArgs* args, int) {
  static const int order[5] = {0, 1, 2, 4, 5};
  for (int64_t i = 0; i < args->rows * args->bands; ++i) {
    const Dual w = Dual(args->limits[0]) * control(args->frequency[i], 0, args->limits[1], args->limits[2]);
    const Dual q = control(args->q[i], 2, args->limits[3], args->limits[4]);
    Dual gain(args->gain[i]);
    gain.d[1] = 1.0;
    const double sine = std::sin(w.v), half = std::sin(0.5 * w.v);
    const Dual cosine = Dual::of(w, std::cos(w.v), -sine), versine = Dual::of(w, 2.0 * half * half, sine);
    const Dual alpha = Dual::of(w, sine, cosine.v) / (Dual(2.0) * q);
    const double decibel = 0.057564627324851142;  // log(10) / 40
    const double factor = std::exp(decibel * gain.v);
    Dual c[6];
    design(args->kinds[i % args->bands], cosine, alpha, Dual::of(gain, factor, decibel * factor), versine, c);
    for (int j = 0; j < 5; ++j) {
      const Dual r = c[order[j]] / c[3];
      args->sos[i * 5 + j] = r.v;
      for (int k = 0; args->slopes && k < 3; ++k) args->slopes[(i * 5 + j) * 3 + k] = r.d[k];
    }
  }
  return 0;
}

DASP_API int dasp_biquads_backward_f64(const BiquadsGradientArgs* args, int) {
  for (int64_t i = 0; i < args->rows * args->bands; ++i) {
    for (int k = 0; k < 3; ++k) {
      double sum = 0.0;
      for (int j = 0; j < 5; ++j) sum += args->gsos[i * 5 + j] * args->slopes[(i * 5 + j) * 3 + k];
      args->gradients[k][i] = sum;
    }
  }
  return 0;
}

// A task is a stretch of an item.
#define DASP_EXPORT_MIX(name, T, suffix)                                                          \
  DASP_API int dasp_##name##_##suffix(const MixArgs* args, int threads) {                         \
    const int64_t length = baseline::kMixStretch, count = (args->samples + length - 1) / length;  \
    const auto nothing = [](int64_t = 0) { return true; };                                        \
    return parallel(threads, 0, nothing, nothing, args->rows * count, [&](int64_t task) {         \
      const int64_t start = task % count * length, end = start + length;                          \
      return DASP_CHOOSE(name<T>)(*args, task / count, start, end < args->samples ? end : args->samples, task); \
    });                                                                                           \
  }

DASP_EXPORT_MIX(mix, float, f32)
DASP_EXPORT_MIX(mix, double, f64)
DASP_EXPORT_MIX(mix_backward, float, f32)
DASP_EXPORT_MIX(mix_backward, double, f64)

#define DASP_EXPORT_PROTOTYPES(name)                                                             \
  DASP_API int dasp_##name##_f64(const PrototypesArgs* args, int threads) {                      \
    const int64_t stretch = 1024, tasks = (args->rows + stretch - 1) / stretch;                  \
    const auto nothing = [](int64_t = 0) { return true; };                                       \
    return parallel(threads, 0, nothing, nothing, tasks, [&](int64_t i) {                        \
      const int64_t last = (i + 1) * stretch;                                                    \
      return DASP_CHOOSE(name)(*args, i * stretch, last < args->rows ? last : args->rows);       \
    });                                                                                          \
  }

DASP_EXPORT_PROTOTYPES(prototypes)
DASP_EXPORT_PROTOTYPES(prototypes_backward)
namespace {

// x acting as clamped, with its derivative.
double clamped(double x, double low, double high, double* slope) {
  *slope = x >= low && x <= high ? 1.0 : 0.0;
  return x < low ? low : x > high ? high : x;
}

// exp(-1 / samples), with its derivative.
double pole(double samples, double shortest, double* slope) {
  *slope = 0.0;
  if (!(samples > shortest)) return 0.0;
  const double value = std::exp(-1.0 / samples);
  *slope = value / (samples * samples);
  return value;
}

}  // namespace

// What a compressor does above its threshold an expander does below: its attack is the pole while the gain rises.
DASP_API int dasp_gain_computer_f64(const GainComputerArgs* args, int) {
  const double per_ms = args->limits[0], neper = args->limits[1], loudest = args->limits[2];
  const double steepest = args->limits[3], shortest = args->limits[4];
  const int64_t attack = args->direction == 1 ? 0 : 1;
  for (int64_t row = 0; row < args->rows; ++row) {
    const double* in = args->controls + row * 7;
    double *curve = args->curve + row * 4, *poles = args->poles + row * 2, d[7];
    curve[0] = neper * clamped(in[0], -loudest, loudest, d);
    if (args->direction == 1) {
      const double ratio = clamped(in[1], 1.0, HUGE_VAL, d + 1);
      curve[1] = 1.0 / ratio - 1.0;
      d[1] /= -ratio * ratio;
    } else {
      curve[1] = 1.0 - clamped(in[1], 1.0, steepest, d + 1);
      d[1] = -d[1];
    }
    curve[2] = neper * clamped(in[2], 0.0, HUGE_VAL, d + 2);
    curve[3] = neper * clamped(in[3], 0.0, HUGE_VAL, d + 3);
    poles[attack] = pole(per_ms * in[4], shortest, d + 4);
    poles[1 - attack] = pole(per_ms * in[5], shortest, d + 5);
    args->makeup[row] = neper * in[6];
    d[6] = 1.0;
    static const int unit[7] = {1, 0, 1, 1, 2, 2, 1};
    for (int i = 0; args->slopes && i < 7; ++i) {
      args->slopes[row * 7 + i] = d[i] * (unit[i] == 1 ? neper : unit[i] == 2 ? per_ms : 1.0);
    }
  }
  return 0;
}

DASP_API int dasp_gain_computer_backward_f64(const GainComputerGradientArgs* args, int) {
  const int64_t attack = args->direction == 1 ? 0 : 1;
  for (int64_t row = 0; row < args->rows; ++row) {
    const double* slopes = args->slopes + row * 7;
    double* out = args->gcontrols + row * 7;
    for (int i = 0; i < 4; ++i) out[i] = slopes[i] * args->gcurve[row * 4 + i];
    out[4] = slopes[4] * args->gpoles[row * 2 + attack];
    out[5] = slopes[5] * args->gpoles[row * 2 + 1 - attack];
    out[6] = slopes[6] * args->gmakeup[row];
  }
  return 0;
}

DASP_EXPORT(ballistics, BallisticsArgs)
DASP_EXPORT(ballistics_backward, BallisticsArgs)
DASP_EXPORT(dynamics, DynamicsArgs)
DASP_EXPORT(dynamics_backward, DynamicsArgs)
DASP_EXPORT(recurrence, RecurrenceArgs)
DASP_EXPORT(recurrence_backward, RecurrenceArgs)
DASP_EXPORT(svf, SvfArgs)
DASP_EXPORT(svf_backward, SvfArgs)
DASP_EXPORT(ballistics_varying, BallisticsArgs)
DASP_EXPORT(ballistics_varying_backward, BallisticsArgs)

DASP_API int dasp_abi_version() { return 6; }

DASP_API const char* dasp_instruction_set() {
  static const char* const names[] = {"baseline", "avx2", "avx512"};
  return names[isa()];
}
