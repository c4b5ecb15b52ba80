//! The memory that the process holds, looked at from time to time, because the system's own peak is that of the whole life.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::fs;

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
