//! The fast constructor of `ServerSentEvent`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PySet};

use crate::event::{Fields, field_names};
use crate::items::Items;

/// How an event is filled without pydantic: the setters of `BaseModel`'s own slots.
struct Slots {
    fields_set: Py<PyAny>,
    extra: Py<PyAny>,
    private: Py<PyAny>,
    /// All six fields, absent: to copy.
    defaults: Py<PyDict>,
}

impl Slots {
    fn of(py: Python<'_>) -> PyResult<&Self> {
        static SLOTS: PyOnceLock<Slots> = PyOnceLock::new();
        SLOTS.get_or_try_init(py, || {
            let slots = py
                .import("pydantic")?
                .getattr("BaseModel")?
                .getattr("__dict__")?;
            let setter = |name| -> PyResult<Py<PyAny>> {
                Ok(slots.get_item(name)?.getattr("__set__")?.unbind())
            };
            let defaults = PyDict::new(py);
            for name in field_names(py) {
                defaults.set_item(name, py.None())?;
            }
            Ok(Self {
                fields_set: setter("__pydantic_fields_set__")?,
                extra: setter("__pydantic_extra__")?,
                private: setter("__pydantic_private__")?,
                defaults: defaults.unbind(),
            })
        })
    }
}

/// Fills a new `ServerSentEvent` from its keyword arguments, where each is exactly what pydantic
/// would store. Returns whether it was: if not, nothing was touched and pydantic must decide.
///
/// # Errors
///
/// None that the arguments can cause.
#[pyfunction]
#[pyo3(signature = (event, fields, /))]
pub(crate) fn fill_event<'py>(
    event: &Bound<'py, PyAny>,
    fields: &Bound<'py, PyDict>,
) -> PyResult<bool> {
    let py = event.py();
    let Some(values) = Fields::of_dict(fields)? else {
        return Ok(false);
    };
    if !values.is_valid() {
        return Ok(false);
    }
    let slots = Slots::of(py)?;
    // Its own dict: setting another would cost as much as making one.
    let attributes = event.getattr(intern!(py, "__dict__"))?;
    let attributes = attributes.cast::<PyDict>()?;
    if !attributes.is_empty() {
        return Ok(false); // it is not new
    }
    attributes.update(slots.defaults.bind(py).as_mapping())?;
    let fields_set = PySet::empty(py)?;
    for item in Items::of(fields) {
        let (name, value) = item?;
        fields_set.add(&name)?;
        attributes.set_item(name, value)?;
    }
    slots.fields_set.bind(py).call1((event, fields_set))?;
    slots.extra.bind(py).call1((event, py.None()))?;
    slots.private.bind(py).call1((event, py.None()))?;
    Ok(true)
}
