//! Recognizing events: instances of FastAPI's class, of our class, or of a subclass of either.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::fields::Fields;
use crate::inheritance::Base;

/// The classes whose instances are events.
pub(crate) struct EventTypes {
    /// `fastapi.sse.ServerSentEvent`.
    base: Base,
    /// `fastapi_sse_fast.ServerSentEvent`.
    ours: Py<PyType>,
}

impl EventTypes {
    pub(crate) fn of(py: Python<'_>) -> PyResult<&Self> {
        static TYPES: PyOnceLock<EventTypes> = PyOnceLock::new();
        TYPES.get_or_try_init(py, || {
            let class = |module: &str| -> PyResult<Py<PyType>> {
                Ok(py
                    .import(module)?
                    .getattr("ServerSentEvent")?
                    .cast_into::<PyType>()?
                    .unbind())
            };
            Ok(Self {
                base: Base::new(class("fastapi.sse")?.bind(py))?,
                ours: class("fastapi_sse_fast.event")?,
            })
        })
    }

    /// Return the fields of `item` if it is an event. `isinstance` would run Python code of the
    /// metaclass for each item; [`Base`] gives the same answer without it.
    ///
    /// # Errors
    ///
    /// Whatever reading the fields raises.
    pub(crate) fn fields<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Option<Fields<'py>>> {
        let py = item.py();
        let class = item.get_type();
        if class.is(&self.ours) || class.is(self.base.class()) {
            let attributes = item.getattr(intern!(py, "__dict__"))?;
            if let Some(fields) = Fields::of_dict(attributes.cast::<PyDict>()?)? {
                return Ok(Some(fields));
            }
            return Fields::of_event(item).map(Some);
        }
        if self.is_event(item)? {
            return Fields::of_subclass(item).map(Some);
        }
        Ok(None)
    }

    /// Return whether `item` is an event, without reading its fields.
    pub(crate) fn is_event(&self, item: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.is_event_class(&item.get_type())
    }

    /// Return whether instances of `class` are events.
    pub(crate) fn is_event_class(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        self.base.is_inherited_by(class)
    }
}
