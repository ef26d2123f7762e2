//! Why Redis does not store what it is given, told to the log once for as long as it lasts.

use std::sync::{Mutex, PoisonError};

use crate::fault::Fault;

/// `None` while it stores.
#[derive(Default)]
pub(crate) struct Refusal(Mutex<Option<Fault>>);

impl Refusal {
    /// It has stored something.
    pub(crate) fn ends(&self) {
        if self.replace(None).is_some() {
            tracing::info!("what is new is cached again");
        }
    }

    /// It has refused to, for this reason.
    pub(crate) fn lasts(&self, fault: &Fault) {
        if self.replace(Some(fault.clone())).as_ref() != Some(fault) {
            tracing::warn!(%fault, "nothing new is cached");
        }
    }

    fn replace(&self, fault: Option<Fault>) -> Option<Fault> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), fault)
    }
}
