//! Logs: frames with positions, and readers that take them, each at its own cursor.
//!
//! A channel and a run are logs. What `ring.rs`, `position.rs` and `split.rs` are about needs no
//! Python.

mod event_log;
pub mod position;
mod reader;
mod ring;
pub mod split;

pub(crate) use event_log::EventLog;
pub(crate) use position::parse_last_event_id;
pub(crate) use reader::LogReader;
pub(crate) use split::split_events;
