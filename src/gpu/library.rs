//! Libraries that are opened at run time: a table of the functions that are called, and nothing at link time.

/// Declares the table of a library's functions, all of which return a status.
///
/// Handles and addresses are numbers (`usize`, `u64`): they are given back to the library and never followed here.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $(fn $function:ident($($argument:ident: $type:ty),* $(,)?);)* }) => {
        $(#[$meta])*
        #[expect(non_snake_case, reason = "the library's own names")]
        pub(crate) struct $name {
            $(pub(crate) $function: unsafe extern "C" fn($($argument: $type),*) -> i32,)*
            _library: libloading::Library,
        }

        #[expect(unsafe_code, reason = "opens a foreign library and looks functions up")]
        impl $name {
            /// Opens the library and looks every function up.
            pub(crate) fn open(path: &std::path::Path) -> crate::error::Result<Self> {
                let failed = |error: libloading::Error| crate::error::GpuError::Library {
                    library: path.display().to_string(),
                    reason: kinset_base::fault::chain(&error),
                };
                // SAFETY: initializers of the vendor's libraries may run at any time.
                let library = unsafe { libloading::Library::new(path) }.map_err(failed)?;
                Ok(Self {
                    // SAFETY: the types are those of the vendor's header, and the library lives as long as the table.
                    $($function: unsafe { *library.get(stringify!($function)).map_err(failed)? },)*
                    _library: library,
                })
            }
        }
    };
}
pub(crate) use table;
