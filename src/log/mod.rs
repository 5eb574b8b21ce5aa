//! Logs: frames with positions, and readers that take them, each at its own cursor.
//!
//! A channel and a run are logs. `ring.rs`, `position.rs` and `split.rs` know no Python.

mod event_log;
pub mod position;
mod reader;
mod ring;
pub mod split;

pub(crate) use event_log::EventLog;
pub(crate) use position::parse_last_event_id;
pub(crate) use reader::LogReader;
