//! The Rust core of `fastapi_sse_fast`: from a yielded item to the bytes on the wire.

mod buffer;
mod bytes;
mod class;
mod construct;
mod encoded;
mod encoder;
mod event;
mod fallback;
mod format;
mod items;
mod json;
mod model;
pub mod output;
mod pacing;
mod pump;
mod scalar;
mod slot;
mod template;
pub mod wire;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    model::prepare(module.py())?;
    module.add("DEBUG", cfg!(debug_assertions))?;
    module.add("KEEPALIVE_COMMENT", PyBytes::new(module.py(), wire::PING))?;
    module.add_class::<buffer::EventBuffer>()?;
    module.add_class::<encoded::EncodedEvent>()?;
    module.add_class::<encoder::ItemEncoder>()?;
    module.add_class::<pump::DirectSend>()?;
    module.add_class::<pump::Pump>()?;
    module.add_class::<template::EventTemplate>()?;
    module.add_function(wrap_pyfunction!(construct::fill_event, module)?)?;
    module.add_function(wrap_pyfunction!(encoder::encode_event, module)?)?;
    module.add_function(wrap_pyfunction!(format::format_sse_event, module)?)?;
    module.add_function(wrap_pyfunction!(slot::slot_digits, module)?)?;
    module.add_function(wrap_pyfunction!(slot::slot_text, module)?)?;
    Ok(())
}
