//! Classes of processors by their instruction sets.

use super::system;
use std::sync::OnceLock;

/// A class of processors by their instruction sets. Classes are ordered from the slowest to the fastest. Weights are
/// packed for one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Portable Rust, for any processor.
    Scalar = 0,
    /// AVX2, FMA and F16C.
    Avx2 = 1,
    /// `Avx2` with the 256-bit VNNI instructions.
    Avx2Vnni = 2,
    /// AVX-512 (F, BW, DQ, VL) with VNNI.
    Avx512Vnni = 3,
    /// `Avx512Vnni` with the bfloat16 dot product.
    Avx512Bf16 = 4,
    /// `Avx512Bf16` with the int8 and bfloat16 tiles of AMX.
    Amx = 5,
}

impl Class {
    /// All classes, from the slowest to the fastest.
    pub const ALL: [Self; 6] =
        [Self::Scalar, Self::Avx2, Self::Avx2Vnni, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];

    /// Returns the name of the class, as in `OPTIMIZE_CPU`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx2Vnni => "avx2vnni",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    /// Returns the class with this name; `None` if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Returns the class with this number in a [`LinearHeader`](super::LinearHeader); `None` if there is none.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u32 == number)
    }

    /// Returns the fastest class that this processor supports, at most the one that the environment variable
    /// `OPTIMIZE_CPU` names. It is determined once per process; an unknown name is ignored.
    pub fn detect() -> Self {
        static CHOSEN: OnceLock<Class> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wanted = std::env::var("OPTIMIZE_CPU").ok().and_then(|name| Self::from_name(&name));
            wanted.unwrap_or(Self::Amx).usable()
        })
    }

    /// Returns whether this processor and operating system support the class.
    pub fn supported(self) -> bool {
        static SUPPORTED: OnceLock<[bool; 6]> = OnceLock::new();
        SUPPORTED.get_or_init(|| Self::ALL.map(probe))[self as usize]
    }

    /// Returns the fastest class up to this one that this processor supports.
    pub fn usable(self) -> Self {
        Self::ALL.into_iter().rev().find(|class| *class <= self && class.supported()).unwrap_or(Self::Scalar)
    }

    /// Returns whether this class has a bfloat16 dot product that is faster than conversion to float32 and
    /// multiplication: it is on AMD's processors; on Intel's, it takes four times as long as a multiplication.
    pub(super) fn fast_bf16_dot(self) -> bool {
        static FAST: OnceLock<bool> = OnceLock::new();
        self >= Self::Avx512Bf16 && *FAST.get_or_init(system::is_amd)
    }
}

/// Returns whether this processor and operating system support a class. [`Class::supported`] calls this once per class.
#[cfg(target_arch = "x86_64")]
fn probe(class: Class) -> bool {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    match class {
        Class::Scalar => true,
        Class::Avx2 => avx2,
        Class::Avx2Vnni => avx2 && is_x86_feature_detected!("avxvnni"),
        Class::Avx512Vnni => avx512,
        Class::Avx512Bf16 => avx512 && is_x86_feature_detected!("avx512bf16"),
        // The results of the tiles are checked as well: an emulated processor, or an operating system that does not
        // save the tiles, may give wrong ones.
        Class::Amx => probe(Class::Avx512Bf16) && has_tiles() && system::permit_tiles() && super::linear::tiles_agree(),
    }
}

/// Returns whether the processor and the operating system support the int8 and bfloat16 tiles of AMX.
#[cfg(target_arch = "x86_64")]
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const STATE: u64 = 1 << 17 | 1 << 18;
    const OSXSAVE: u32 = 1 << 27;
    #[target_feature(enable = "xsave")]
    fn state() -> u64 {
        // SAFETY: the caller has checked OSXSAVE.
        unsafe { _xgetbv(0) }
    }
    let known = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8;
    // SAFETY: if OSXSAVE is set, the processor has the instruction.
    known && __cpuid(1).ecx & OSXSAVE != 0 && unsafe { state() } & STATE == STATE
}

#[cfg(not(target_arch = "x86_64"))]
fn probe(class: Class) -> bool {
    class == Class::Scalar
}
