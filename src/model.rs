//! pydantic models that serialize the usual way: their serializer is called without the Python
//! method around it.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyString};

use crate::class;

/// What `model.model_dump(mode="json", by_alias=True)` gives, as `jsonable_encoder` calls it.
/// `None` where `value` is no model, or one with a `model_dump` of its own.
///
/// # Errors
///
/// What the serializer raises.
pub(crate) fn dumped<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static KEYWORDS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let py = value.py();
    let methods = Methods::of(py)?;
    if !inherits(value, intern!(py, "model_dump"), methods, &methods.dump)? {
        return Ok(None);
    }
    let keywords = KEYWORDS.get_or_try_init(py, || {
        let by_alias = [("by_alias", true)].into_py_dict(py)?;
        by_alias.set_item("mode", "json")?;
        PyResult::Ok(by_alias.unbind())
    })?;
    let serialize = serializer(value)?.getattr(intern!(py, "to_python"))?;
    serialize.call((value,), Some(keywords.bind(py))).map(Some)
}

/// The bytes of `model.model_dump_json()`. `None` as for [`dumped`].
///
/// # Errors
///
/// What the serializer raises.
pub(crate) fn dumped_json<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = value.py();
    let methods = Methods::of(py)?;
    if !inherits(
        value,
        intern!(py, "model_dump_json"),
        methods,
        &methods.dump_json,
    )? {
        return Ok(None);
    }
    let serialize = serializer(value)?.getattr(intern!(py, "to_json"))?;
    let keywords = methods.json_keywords.as_ref();
    let json = serialize.call((value,), keywords.map(|keywords| keywords.bind(py)))?;
    Ok(Some(json.cast_into()?))
}

/// Notes `BaseModel`'s own methods, before anybody replaces them.
///
/// # Errors
///
/// There is no pydantic.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    Methods::of(py).map(drop)
}

/// `BaseModel`'s own methods, to tell a model that overrides them.
struct Methods {
    model: Py<PyAny>,
    dump: Py<PyAny>,
    dump_json: Py<PyAny>,
    /// Before pydantic 2.11 the method's default for `by_alias` is not the serializer's.
    json_keywords: Option<Py<PyDict>>,
}

impl Methods {
    fn of(py: Python<'_>) -> PyResult<&Self> {
        static METHODS: PyOnceLock<Methods> = PyOnceLock::new();
        METHODS.get_or_try_init(py, || {
            let model = py.import("pydantic")?.getattr("BaseModel")?;
            let dump_json = model.getattr("model_dump_json")?;
            let by_alias = dump_json.getattr("__kwdefaults__")?.get_item("by_alias")?;
            let json_keywords = (!by_alias.is_none())
                .then(|| [("by_alias", by_alias)].into_py_dict(py))
                .transpose()?
                .map(Bound::unbind);
            Ok(Self {
                dump: model.getattr("model_dump")?.unbind(),
                dump_json: dump_json.unbind(),
                json_keywords,
                model: model.unbind(),
            })
        })
    }
}

/// Whether `value` is a model whose method of this name is `BaseModel`'s own.
fn inherits(
    value: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    methods: &Methods,
    own: &Py<PyAny>,
) -> PyResult<bool> {
    let class = value.get_type();
    Ok(class.getattr_opt(name)?.is_some_and(|found| found.is(own))
        && class::has_base(&class, &methods.model))
}

fn serializer<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    value
        .get_type()
        .getattr(intern!(value.py(), "__pydantic_serializer__"))
}
