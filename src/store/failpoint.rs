//! Failpoints: the places of publishing where a test can fail or exit. In a release build they are empty.

/// The points that tests can fail at.
#[derive(Default)]
pub(super) struct Failpoints {
    #[cfg(test)]
    hook: std::sync::Mutex<Option<Hook>>,
}

/// Called at each point with its name; an error ends the operation there.
#[cfg(test)]
type Hook = Box<dyn FnMut(&'static str) -> std::io::Result<()> + Send>;

impl Failpoints {
    /// Passes a point.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the tests' form of it needs both")]
    pub(super) fn pass(&self, _point: &'static str) -> std::io::Result<()> {
        Ok(())
    }

    /// Passes a point, unless the hook objects.
    #[cfg(test)]
    pub(super) fn pass(&self, point: &'static str) -> std::io::Result<()> {
        match &mut *self.hook.lock().unwrap() {
            Some(hook) => hook(point),
            None => Ok(()),
        }
    }

    /// Sets what happens at each point.
    #[cfg(test)]
    pub(super) fn set(&self, hook: impl FnMut(&'static str) -> std::io::Result<()> + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }
}
