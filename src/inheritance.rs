//! Subclass checks that run no Python code.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// A class that other classes may inherit from.
pub(crate) struct Base {
    class: Py<PyType>,
    /// `type.__subclasscheck__`, bound to the class. `issubclass` and `__mro__` would run code of
    /// the metaclass, and pydantic's models have one. `PyO3`'s `mro` panics for a class that its
    /// metaclass exposes before it is finished.
    subclass_check: Py<PyAny>,
}

impl Base {
    pub(crate) fn new(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        let types = py.get_type::<PyType>();
        let check = types.getattr(intern!(py, "__subclasscheck__"))?;
        let bound = check.call_method1(intern!(py, "__get__"), (class, &types))?;
        Ok(Self {
            class: class.clone().unbind(),
            subclass_check: bound.unbind(),
        })
    }

    pub(crate) fn class(&self) -> &Py<PyType> {
        &self.class
    }

    /// Return whether `class` is this class or inherits from it.
    ///
    /// # Errors
    ///
    /// None that a class can cause.
    pub(crate) fn is_inherited_by(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let answer = self.subclass_check.bind(class.py()).call1((class,))?;
        answer.is_truthy()
    }
}
