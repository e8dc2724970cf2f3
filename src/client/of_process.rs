//! What a fork of the process must leave alone.

use std::mem::ManuallyDrop;

use super::error::ClientError;
use super::process::Process;

/// What belongs to the process that made it. In a fork of that it cannot be reached, and is not dropped: the locks in it
/// may be held by threads that the fork has not got.
#[derive(Debug)]
pub(super) struct OfProcess<T> {
    built_in: Process,
    /// Always there until it is dropped.
    inner: Option<T>,
}

impl<T> OfProcess<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { built_in: Process::current(), inner: Some(inner) }
    }

    pub(super) fn get(&self) -> Result<&T, ClientError> {
        self.check()?;
        Ok(self.inner.as_ref().expect("it is taken by its end alone"))
    }

    pub(super) fn get_mut(&mut self) -> Result<&mut T, ClientError> {
        self.check()?;
        Ok(self.inner.as_mut().expect("it is taken by its end alone"))
    }

    pub(super) fn into_inner(mut self) -> Result<T, ClientError> {
        self.check()?;
        Ok(self.inner.take().expect("it is taken by its end alone"))
    }

    fn check(&self) -> Result<(), ClientError> {
        ClientError::check_process(self.built_in)
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.check().is_err() {
            let _kept_for_ever = ManuallyDrop::new(self.inner.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_another_process_is_out_of_reach_and_never_dropped() {
        struct Dropped<'d>(&'d std::cell::Cell<u32>);

        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }

        let drops = std::cell::Cell::new(0);
        drop(OfProcess::new(Dropped(&drops)));
        assert_eq!(drops.get(), 1);
        let mut others = OfProcess { built_in: Process::another(), inner: Some(Dropped(&drops)) };
        let error = others.get_mut().map(drop).unwrap_err();
        assert!(others.get().is_err() && error.is_usage());
        let said = format!("process {} is a fork of process 1", std::process::id());
        assert!(error.to_string().starts_with(&said), "{error}");
        drop(others);
        assert_eq!(drops.get(), 1, "its locks may be held by a thread that is not there");
    }
}
