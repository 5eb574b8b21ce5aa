//! The Rust core of `fastapi_sse_fast`: from a yielded item to the bytes on the wire.
//!
//! The public modules are the wire format and the JSON of scalars. They do not depend on Python,
//! and they are public only for the fuzz targets.

#![allow(
    clippy::doc_markdown,
    reason = "the docstrings that come from the stub are written for Python"
)]

/// Expand to the docstring of a name in the stub, which `build.rs` has extracted.
macro_rules! stub_doc {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".txt"))
    };
}

mod buffer;
mod bytes;
mod dict_items;
mod encoded;
mod encoder;
mod errors;
mod event;
mod fallback;
mod format;
mod inheritance;
#[doc(hidden)]
pub mod json;
#[doc(hidden)]
pub mod lines;
#[doc(hidden)]
pub mod log;
#[doc(hidden)]
pub mod output;
mod pacing;
mod part;
mod progress;
mod pump;
mod pydantic;
mod sender;
mod slot;
mod sse_starlette;
mod template;
pub mod wire;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    pydantic::probe_fast_paths(py)?;
    fallback::refuse(
        &py.get_type::<template::EventTemplate>(),
        "is not an event: call it with the values of its slots",
    );
    module.add("DEBUG", cfg!(debug_assertions))?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("KEEPALIVE_COMMENT", PyBytes::new(py, wire::PING))?;
    module.add_class::<buffer::EventBuffer>()?;
    module.add_class::<encoded::EncodedEvent>()?;
    module.add_class::<encoder::ItemEncoder>()?;
    module.add_class::<log::EventLog>()?;
    module.add_class::<log::LogReader>()?;
    module.add_class::<pump::DirectSend>()?;
    module.add_class::<pump::Pump>()?;
    module.add_class::<template::EventTemplate>()?;
    module.add_function(wrap_pyfunction!(event::construct::fill_event, module)?)?;
    module.add_function(wrap_pyfunction!(encoder::encode_event, module)?)?;
    module.add_function(wrap_pyfunction!(format::format_sse_event, module)?)?;
    module.add_function(wrap_pyfunction!(log::split_events, module)?)?;
    module.add_function(wrap_pyfunction!(log::parse_last_event_id, module)?)?;
    module.add_function(wrap_pyfunction!(pump::begin_send, module)?)?;
    module.add_function(wrap_pyfunction!(slot::slot_digits, module)?)?;
    module.add_function(wrap_pyfunction!(slot::slot_name, module)?)?;
    module.add_function(wrap_pyfunction!(slot::slot_text, module)?)?;
    module.add_function(wrap_pyfunction!(
        sse_starlette::sse_starlette_bytes,
        module
    )?)?;
    module.add_function(wrap_pyfunction!(
        sse_starlette::sse_starlette_check,
        module
    )?)?;
    module.add_function(wrap_pyfunction!(
        sse_starlette::sse_starlette_frame,
        module
    )?)?;
    Ok(())
}
