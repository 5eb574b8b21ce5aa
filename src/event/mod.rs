//! Events: the six fields of a `ServerSentEvent`, from Python objects to a frame.

pub(crate) mod construct;
mod data;
mod fields;
mod recognise;

pub(crate) use self::data::{is_model, is_plain, write_data};
pub(crate) use self::fields::{Checked, Fields};
pub(crate) use self::recognise::EventTypes;
