//! How the C library gives memory back to the system.
//!
//! glibc lets a large piece have pages of its own, which go back as soon as it is freed, but it
//! raises the size from which it does so whenever one is freed, up to 32 MiB (`mallopt(3)`,
//! `M_MMAP_THRESHOLD`). Bodies, pictures and SQLite's large rows then lie in the heaps of the
//! threads, where whatever small thing lies above them keeps all of it. A size that is set stays.

/// From how many bytes on a piece has pages of its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES: libc::c_int = 256 * 1024;

/// How many free bytes may lie at the end of a heap before they are given back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SPARE: libc::c_int = 1024 * 1024;

/// Fixes both sizes for the whole process; on other systems the allocator stays as it is.
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "no safe wrapper of mallopt(3) is kept by anybody")
)]
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, bytes) in [(libc::M_MMAP_THRESHOLD, OWN_PAGES), (libc::M_TRIM_THRESHOLD, SPARE)]
    {
        // SAFETY: both are numbers that mallopt(3) defines, and it takes the allocator's own lock,
        // so that it may be called at any time; nothing is read or written here.
        let taken = unsafe { libc::mallopt(parameter, bytes) };
        debug_assert_eq!(taken, 1, "mallopt takes {parameter}");
    }
}
