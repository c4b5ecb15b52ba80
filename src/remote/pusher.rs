//! The [`Pusher`]: results go to the remote store while a run goes on.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kinset_base::fault::chain;
use kinset_base::stop::Stop;
use kinset_store::Store;
use kinset_store::key::Key;

use super::error::RemoteError;
use super::push::Pushed;
use super::remote::Remote;
use super::work::Work;

/// A thread that pushes what it is told.
pub struct Pusher {
    line: Option<Sender<(String, Key)>>,
    thread: Option<JoinHandle<()>>,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    waiting: AtomicU64,
    sent: Mutex<Sent>,
}

/// What became of all that was to be pushed.
#[derive(Debug, Default)]
pub struct Sent {
    /// Results that are there now.
    pub results: u64,
    /// Bytes that were sent for them.
    pub bytes: u64,
    /// Stages whose key has another result there.
    pub differ: Vec<String>,
    /// Stages whose result is not there, and why the first of them is not.
    pub failed: Vec<String>,
    pub why: Option<String>,
}

impl Pusher {
    /// Starts the thread; the store of these artifacts is opened by it. Once `stop` is requested it sends nothing more.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(remote: Arc<Remote>, artifacts: &Path, stop: Stop) -> std::io::Result<Self> {
        let (line, jobs) = mpsc::channel();
        let told = Arc::new(Told::default());
        let (artifacts, tells) = (artifacts.to_owned(), Arc::clone(&told));
        let work = move || push_all(&remote, &artifacts, &stop, &jobs, &tells);
        let thread = std::thread::Builder::new().name("push".into()).spawn(work)?;
        Ok(Self { line: Some(line), thread: Some(thread), told })
    }

    /// Takes the result of a stage into the line.
    pub fn push(&self, stage: &str, key: Key) {
        self.told.waiting.fetch_add(1, Ordering::Relaxed);
        // The thread goes on until this end of the line is gone.
        let _ = self.line.as_ref().map(|line| line.send((stage.to_owned(), key)));
    }

    /// Results that are still to be sent.
    pub fn waiting(&self) -> u64 {
        self.told.waiting.load(Ordering::Relaxed)
    }

    /// Waits until all is sent, or has failed.
    pub fn finish(mut self) -> Sent {
        drop(self.line.take());
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        let mut sent = std::mem::take(&mut *self.told.sent.lock().unwrap_or_else(PoisonError::into_inner));
        if ended.is_err() {
            sent.why.get_or_insert_with(|| "the thread that pushes panicked".into());
        }
        sent
    }
}

fn push_all(remote: &Remote, artifacts: &Path, stop: &Stop, jobs: &Receiver<(String, Key)>, told: &Told) {
    let store = Store::open(artifacts).map_err(RemoteError::from);
    // Nothing may be deleted before it is sent.
    let _held = store.as_ref().ok().and_then(|store| store.lock_shared(|| !stop.requested()).ok());
    let mut over = None::<String>;
    for (stage, key) in jobs {
        let pushed = match (&store, &over) {
            (_, Some(why)) => Err(why.clone()),
            (Err(error), _) => Err(chain(error)),
            (Ok(store), None) => remote.push(store, &key, Work { stop, moved: &|_| {} }).map_err(|error| {
                let why = chain(&error);
                // Each further one would wait as long for the same answer.
                if error.is_of_the_place() || stop.requested() {
                    over = Some(why.clone());
                }
                why
            }),
        };
        let mut sent = told.sent.lock().unwrap_or_else(PoisonError::into_inner);
        match pushed {
            Ok(Pushed::Sent { bytes, .. }) => {
                sent.results += 1;
                sent.bytes += bytes;
            }
            Ok(Pushed::There) => sent.results += 1,
            Ok(Pushed::Differs) => sent.differ.push(stage),
            Err(why) => {
                sent.failed.push(stage);
                sent.why.get_or_insert(why);
            }
        }
        told.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Machine, Place, manifest, quietly, three};

    fn pusher(place: &Place, machine: &Machine) -> Pusher {
        let remote = Remote::over(Box::new(place.objects.clone()), place.remote.address().clone());
        Pusher::start(Arc::new(remote), machine.store.artifacts(), Stop::default()).unwrap()
    }

    #[test]
    fn all_is_sent_before_it_ends() {
        let (place, here, there) = three();
        let pusher = pusher(&place, &there);
        for number in 1..4 {
            let record = there.compute(number, &number.to_string());
            pusher.push(&format!("stage {number}"), record.key);
        }
        let sent = pusher.finish();
        assert_eq!((sent.results, sent.failed.len(), sent.differ.len()), (3, 0, 0), "{sent:?}");
        for number in 1..4 {
            place.remote.pull(&here.store, &manifest(number), quietly()).unwrap().unwrap();
        }
    }

    #[test]
    fn what_cannot_be_sent_is_told_by_name_and_nobody_is_asked_again_and_again() {
        let (place, _, there) = three();
        place.objects.fail_after(0);
        let pusher = pusher(&place, &there);
        for number in 1..4 {
            let record = there.compute(number, &number.to_string());
            pusher.push(&format!("stage {number}"), record.key);
        }
        let sent = pusher.finish();
        assert_eq!(sent.failed, ["stage 1", "stage 2", "stage 3"]);
        assert!(sent.why.unwrap().contains("does not answer: it was told to fail"));
        assert_eq!(place.objects.calls(), 1);
    }

    #[test]
    fn another_result_of_a_key_is_told() {
        let (place, here, there) = three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        let pusher = pusher(&place, &here);
        pusher.push("mine", here.compute(1, "another").key);
        assert_eq!(pusher.finish().differ, ["mine"]);
    }
}
