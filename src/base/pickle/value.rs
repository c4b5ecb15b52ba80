//! Values in a pickle: numbers, texts, plain containers, tensors and storages; and a handful of names, which nobody calls.
//!
//! Values lie in one list and name each other by place.

/// The place of a value.
pub type Id = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Number {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }
}

/// A run of numbers that lies outside the pickle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub key: String,
    pub number: Number,
    /// How many numbers the whole of it has.
    pub length: u64,
    /// The part of the whole that is meant: its beginning and length.
    pub part: Option<(u64, u64)>,
}

/// Numbers of a storage in a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub storage: Id,
    /// The first number.
    pub offset: u64,
    pub shape: Vec<u64>,
    /// Numbers from one entry of an axis to the next.
    pub strides: Vec<u64>,
}

/// A NumPy array, its numbers by the place of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Array {
    pub shape: Vec<u64>,
    /// Its type: `u1`, `f4`.
    pub code: String,
    /// True if the first axis runs fastest.
    pub fortran: bool,
    /// The place of its bytes; none before its state came.
    pub data: Option<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Dict,
    /// `set`, `frozenset`, `list`, `tuple`, `torch.Size`: their argument is as good.
    Same,
    Encode,
    Tensor,
    /// `torch._utils._rebuild_parameter`: its first argument.
    Parameter,
    Storage(Number),
    Dtype,
    Scalar,
    /// `_reconstruct` of NumPy: an array that is still empty.
    Array,
    /// What nobody here reads: NumPy's type of arrays, devices.
    Unread,
}

/// Names that no file of weights has a reason for: whoever reads such a file is better off without all of it.
pub fn is_hostile(module: &str, name: &str) -> bool {
    const MODULES: [&str; 16] = [
        "os",
        "posix",
        "nt",
        "sys",
        "subprocess",
        "shutil",
        "socket",
        "pty",
        "runpy",
        "importlib",
        "ctypes",
        "code",
        "pdb",
        "timeit",
        "webbrowser",
        "commands",
    ];
    const BUILTINS: [&str; 8] = ["eval", "exec", "execfile", "compile", "__import__", "open", "input", "breakpoint"];
    let root = module.split('.').next().unwrap_or(module);
    MODULES.contains(&root) || (matches!(root, "builtins" | "__builtin__") && BUILTINS.contains(&name))
}

pub fn known(module: &str, name: &str) -> Option<Known> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Known::Dict,
        ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple") | ("torch", "Size") => Known::Same,
        ("_codecs", "encode") => Known::Encode,
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Known::Tensor,
        ("torch._utils", "_rebuild_parameter") => Known::Parameter,
        ("torch" | "torch.storage", name) if name.ends_with("Storage") => Known::Storage(Number::of_storage(name)?),
        ("numpy", "dtype") => Known::Dtype,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Known::Scalar,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Known::Array,
        ("numpy", "ndarray") | ("torch", "device") => Known::Unread,
        _ => return None,
    })
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Known(Known),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    /// A NumPy type: its code, and whether its bytes run from the large end.
    Dtype(String, bool),
    Array(Box<Array>),
    /// Something that nobody here reads.
    Unread,
    /// What a name that is not known stands for, or would make: nothing was called, and nothing is in it. The place of the name in
    /// [`Pickled::strangers`].
    Stranger(u32),
}

#[derive(Debug)]
pub struct Pickled {
    pub values: Vec<Value>,
    /// Modules and names that are not known, in their order.
    pub strangers: Vec<String>,
    /// The value it stands for.
    pub root: Id,
    /// Bytes it took.
    pub length: usize,
}

impl Pickled {
    pub fn get(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    /// The text in a place, if it is one.
    pub fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.get(id) { Some(text) } else { None }
    }

    /// The module and name of the class that an object in a place would have, if it is of one that is not known.
    pub fn stranger(&self, id: Id) -> Option<&str> {
        if let Value::Stranger(place) = self.get(id) { self.strangers.get(*place as usize).map(String::as_str) } else { None }
    }

    /// The bytes in a place, if it is bytes, or a string of Python 2 that happens to be a text.
    pub fn bytes(&self, id: Id) -> Option<&[u8]> {
        match self.get(id) {
            Value::Bytes(bytes) => Some(bytes),
            Value::Text(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The entries of a dictionary whose keys are texts, if it is one.
    pub fn entries(&self, id: Id) -> Option<impl Iterator<Item = (&str, Id)>> {
        let Value::Dict(entries) = self.get(id) else { return None };
        Some(entries.iter().filter_map(|&(key, value)| Some((self.text(key)?, value))))
    }

    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| if let Value::Storage(storage) = value { Some(&**storage) } else { None })
    }
}

/// A NumPy scalar: its bytes as its type reads them.
pub fn scalar(code: &str, large_end: bool, bytes: &[u8]) -> Value {
    let mut bytes = bytes.to_vec();
    if large_end {
        bytes.reverse();
    }
    let eight = |bytes: &[u8]| -> Option<[u8; 8]> {
        let mut all = [0; 8];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(all)
    };
    let Some(all) = eight(&bytes) else { return Value::Unread };
    let unsigned = u64::from_le_bytes(all);
    match (code, bytes.len()) {
        ("f8", 8) => Value::Float(f64::from_le_bytes(all)),
        ("f4", 4) => Value::Float(f32::from_bits(unsigned as u32).into()),
        ("b1", 1) => Value::Bool(unsigned != 0),
        ("i8" | "i4" | "i2" | "i1", length) if code[1..] == length.to_string() => {
            let shift = 64 - 8 * length as u32;
            Value::Int((unsigned << shift) as i64 >> shift)
        }
        ("u8" | "u4" | "u2" | "u1", length) if code[1..] == length.to_string() => {
            i64::try_from(unsigned).map_or(Value::Unread, Value::Int)
        }
        _ => Value::Unread,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpy_scalars_are_numbers() {
        assert_eq!(scalar("i8", false, &(-3_i64).to_le_bytes()), Value::Int(-3));
        assert_eq!(scalar("i4", true, &7_i32.to_be_bytes()), Value::Int(7));
        assert_eq!(scalar("i2", false, &(-2_i16).to_le_bytes()), Value::Int(-2));
        assert_eq!(scalar("u1", false, &[200]), Value::Int(200));
        assert_eq!(scalar("f8", false, &0.5_f64.to_le_bytes()), Value::Float(0.5));
        assert_eq!(scalar("f4", true, &0.5_f32.to_be_bytes()), Value::Float(0.5));
        assert_eq!(scalar("b1", false, &[1]), Value::Bool(true));
        for (code, bytes) in [("i8", &[0_u8; 9][..]), ("i4", &[0; 8]), ("u8", &[255; 8]), ("O", &[0; 8])] {
            assert_eq!(scalar(code, false, bytes), Value::Unread, "{code}");
        }
    }
}
