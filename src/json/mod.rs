//! Python values as JSON. `walk` goes through them; `string`, `float` and `style` know no Python.

pub mod float;
pub mod string;
pub mod style;
mod walk;

use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pub(crate) use self::string::write_string;
pub(crate) use self::style::Spelling;
pub(crate) use self::walk::write;

impl<'a, 'py> FromPyObject<'a, 'py> for Spelling {
    type Error = PyErr;

    fn extract(name: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        for (word, spelling) in [("fastapi", Self::Fastapi), ("compact", Self::Compact)] {
            if name.eq(word)? {
                return Ok(spelling);
            }
        }
        Err(PyValueError::new_err(format!(
            "json must be 'fastapi' or 'compact', not {}",
            name.repr()?
        )))
    }
}
