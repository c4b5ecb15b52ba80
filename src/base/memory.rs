//! The memory that the process may use, and the memory that it holds.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::fs;
use super::machine::Machine;

/// What the user allows; nothing if nobody said.
static ALLOWED: OnceLock<u64> = OnceLock::new();

/// Sets the bytes that the process may use: a bound for what is kept or decoded at a time, not for what a method needs. The first
/// call counts.
pub fn allow(bytes: u64) {
    ALLOWED.get_or_init(|| bytes);
}

/// The bytes that one use of memory may take, of which there are few at a time: a quarter of what the user allows; else the usual
/// amount, or a quarter of what the machine has if that is less.
pub fn share(usual: u64) -> u64 {
    static MACHINE: OnceLock<Option<u64>> = OnceLock::new();
    let of_machine = || *MACHINE.get_or_init(|| Machine::look().memory_in_all());
    share_of(usual, ALLOWED.get().copied(), of_machine)
}

fn share_of(usual: u64, allowed: Option<u64>, machine: impl FnOnce() -> Option<u64>) -> u64 {
    match allowed {
        Some(bytes) => bytes / 4,
        None => machine().map_or(usual, |bytes| usual.min(bytes / 4)),
    }
}

/// Looked at from time to time, because the system's own peak is that of the whole life.
const PAUSE: Duration = Duration::from_millis(50);
/// `status` has some 60 lines.
const LARGEST: u64 = 1 << 16;

/// Bytes of physical memory that the process holds now; nothing where the system does not say (it does on Linux).
pub fn resident() -> Option<u64> {
    let bytes = fs::read_at_most(Path::new("/proc/self/status"), LARGEST).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[derive(Debug)]
pub struct Watch {
    stop: Sender<()>,
    looking: Option<JoinHandle<Option<u64>>>,
}

impl Watch {
    /// Starts to look. Without a thread to spare nothing is seen, and nothing fails.
    pub fn start() -> Self {
        let (stop, stopped) = channel::<()>();
        let look = move || {
            let mut most = resident();
            // Where nothing is said the first time, nothing will be said later.
            while most.is_some() && stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                most = most.max(resident());
            }
            most.max(resident())
        };
        Self { stop, looking: std::thread::Builder::new().name("memory".into()).spawn(look).ok() }
    }

    /// The most that was seen, in bytes.
    pub fn peak(mut self) -> Option<u64> {
        // It may have ended by itself.
        let _ = self.stop.send(());
        self.looking.take().and_then(|looking| looking.join().ok().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_quarter_of_what_is_said_and_never_more_of_the_machine() {
        let machine = |bytes: u64| move || Some(bytes);
        assert_eq!(share_of(100, Some(1000), machine(80)), 250, "who says it is believed");
        assert_eq!(share_of(100, None, machine(1000)), 100);
        assert_eq!(share_of(100, None, machine(80)), 20);
        assert_eq!(share_of(100, None, || None), 100);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_was_held_while_it_looked_is_seen() {
        let watch = Watch::start();
        let held = vec![1_u8; 64 << 20];
        std::thread::sleep(4 * PAUSE);
        assert!(held.iter().map(|byte| usize::from(*byte)).sum::<usize>() == 64 << 20);
        drop(held);
        let peak = watch.peak().unwrap();
        assert!(peak >= 64 << 20, "{peak}");
    }
}
