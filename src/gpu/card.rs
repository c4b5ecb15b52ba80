//! A card: its libraries, context, one stream for all threads, and kernels.

#![expect(unsafe_code, reason = "calls functions of the driver and of cuDNN")]

use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::cudnn::{Cudnn, done};
use super::driver::{CAPABILITY, Driver, NO_DEVICE, NON_BLOCKING};
use super::error::{GpuError, Result};
use super::kernels::{KERNELS, Kernel, ptx};
use super::session::Session;

/// Where the libraries are looked for: as the system does, by their names, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Libraries {
    pub driver: PathBuf,
    pub cudnn: PathBuf,
}

impl Default for Libraries {
    fn default() -> Self {
        Self { driver: "libcuda.so.1".into(), cudnn: "libcudnn.so.9".into() }
    }
}

impl Libraries {
    /// One file that is both, such as the test double.
    pub fn both(path: &Path) -> Self {
        Self { driver: path.into(), cudnn: path.into() }
    }
}

/// An opened card. All that is asked of it goes through `Card::turn`, into one stream.
pub struct Card {
    pub(crate) driver: Driver,
    pub(crate) cudnn: Cudnn,
    name: String,
    capability: u32,
    device: i32,
    context: usize,
    stream: usize,
    module: usize,
    functions: [usize; KERNELS.len()],
    /// cuDNN's.
    pub(crate) handle: usize,
    turn: Mutex<()>,
    /// Sessions that nobody uses now.
    pub(crate) idle: Mutex<Vec<Session>>,
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").field("name", &self.name).field("capability", &self.capability).finish_non_exhaustive()
    }
}

/// The card that networks of this process compute on.
static USED: OnceLock<Card> = OnceLock::new();

impl Card {
    /// The card that networks of this process compute on, if one was chosen: as the instruction set of the processor, it is decided
    /// once and not passed around.
    pub fn used() -> Option<&'static Self> {
        USED.get()
    }

    /// Opens a card for all networks of this process. The first choice stays.
    ///
    /// # Errors
    /// As of [`Card::open`]; [`GpuError::Chosen`] if it was another one.
    pub fn choose(index: usize) -> Result<&'static Self> {
        let card = if let Some(card) = USED.get() {
            card
        } else {
            let card = Self::open(&Libraries::default(), index)?;
            USED.get_or_init(|| card)
        };
        if card.device == index as i32 { Ok(card) } else { Err(GpuError::Chosen { card: card.device as usize }) }
    }

    /// # Errors
    /// [`GpuError::Library`], [`GpuError::NoCard`], [`GpuError::NoSuchCard`], [`GpuError::TooOld`] say why there is none.
    pub fn open(libraries: &Libraries, index: usize) -> Result<Self> {
        let driver = Driver::open(&libraries.driver)?;
        // SAFETY: takes no pointer.
        match unsafe { (driver.cuInit)(0) } {
            NO_DEVICE => return Err(GpuError::NoCard),
            code => driver.check("cuInit", code)?,
        }
        let count = driver.value("cuDeviceGetCount", |value| {
            // SAFETY: it writes one number to where the pointer shows, as all of these do.
            unsafe { (driver.cuDeviceGetCount)(value) }
        })?;
        if count == 0 {
            return Err(GpuError::NoCard);
        }
        if index >= count as usize {
            return Err(GpuError::NoSuchCard { index, count: count as usize });
        }
        let device = driver.value("cuDeviceGet", |value| {
            // SAFETY: as above.
            unsafe { (driver.cuDeviceGet)(value, index as i32) }
        })?;
        let name = driver.name(device)?;
        let [major, minor] = CAPABILITY.map(|attribute| {
            driver.value("cuDeviceGetAttribute", |value| {
                // SAFETY: as above.
                unsafe { (driver.cuDeviceGetAttribute)(value, attribute, device) }
            })
        });
        let capability = (major? * 10 + minor?) as u32;
        let Some(image) = ptx(capability) else { return Err(GpuError::TooOld { name, capability }) };
        let cudnn = Cudnn::open(&libraries.cudnn)?;
        let context = driver.value("cuDevicePrimaryCtxRetain", |value| {
            // SAFETY: as above.
            unsafe { (driver.cuDevicePrimaryCtxRetain)(value, device) }
        })?;
        let (turn, idle, functions) = (Mutex::new(()), Mutex::new(Vec::new()), [0; KERNELS.len()]);
        // From here on `drop` gives back what was got.
        let mut card =
            Self { driver, cudnn, name, capability, device, context, stream: 0, module: 0, functions, handle: 0, turn, idle };
        card.bind()?;
        card.stream = card.driver.value("cuStreamCreate", |value| {
            // SAFETY: as above.
            unsafe { (card.driver.cuStreamCreate)(value, NON_BLOCKING) }
        })?;
        let image: Vec<u8> = image.bytes().chain([0]).collect();
        card.module = card.driver.value("cuModuleLoadData", |value| {
            // SAFETY: as above; the image ends with a zero and is copied.
            unsafe { (card.driver.cuModuleLoadData)(value, image.as_ptr()) }
        })?;
        for (at, kernel) in KERNELS.iter().enumerate() {
            let name: Vec<u8> = kernel.name().bytes().chain([0]).collect();
            card.functions[at] = card.driver.value("cuModuleGetFunction", |value| {
                // SAFETY: as above; the name ends with a zero.
                unsafe { (card.driver.cuModuleGetFunction)(value, card.module, name.as_ptr()) }
            })?;
        }
        let mut handle = 0;
        // SAFETY: as above.
        done("cudnnCreate", unsafe { (card.cudnn.cudnnCreate)(&raw mut handle) })?;
        card.handle = handle;
        // SAFETY: both handles are live.
        done("cudnnSetStream", unsafe { (card.cudnn.cudnnSetStream)(card.handle, card.stream) })?;
        Ok(card)
    }

    /// As its maker calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ten times the compute capability.
    pub fn capability(&self) -> u32 {
        self.capability
    }

    /// The driver's version: 1000 · major + 10 · minor of the newest CUDA that it knows.
    pub fn driver_version(&self) -> Result<u32> {
        let version = self.driver.value("cuDriverGetVersion", |value| {
            // SAFETY: it writes one number to where the pointer shows.
            unsafe { (self.driver.cuDriverGetVersion)(value) }
        })?;
        Ok(version as u32)
    }

    /// The card for one thread at a time, its context bound to the calling one. What several threads ask is done in the order of
    /// their turns, so that none reads what another has not finished.
    pub(crate) fn turn(&self) -> Result<Turn<'_>> {
        let guard = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.bind()?;
        Ok(Turn { card: self, _guard: guard })
    }

    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as the card.
        self.driver.check("cuCtxSetCurrent", unsafe { (self.driver.cuCtxSetCurrent)(self.context) })
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let idle = std::mem::take(self.idle.get_mut().unwrap_or_else(PoisonError::into_inner));
        for session in idle {
            session.free(self);
        }
        if self.bind().is_err() {
            return;
        }
        // A library that fails at its end has nothing to say that anybody could act on.
        // SAFETY: each handle was got, is given back once and is not used after; zero stands for none.
        unsafe {
            if self.handle != 0 {
                (self.cudnn.cudnnDestroy)(self.handle);
            }
            if self.module != 0 {
                (self.driver.cuModuleUnload)(self.module);
            }
            if self.stream != 0 {
                (self.driver.cuStreamDestroy_v2)(self.stream);
            }
            (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device);
        }
    }
}

impl Driver {
    fn check(&self, call: &'static str, code: i32) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: it writes one pointer, to a text that lives as long as the library, or leaves it.
        let known = unsafe { (self.cuGetErrorString)(code, &raw mut text) } == 0 && !text.is_null();
        let reason = if known {
            // SAFETY: it is not null and ends with a zero.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        } else {
            "unknown error".into()
        };
        Err(GpuError::Call { call, code, reason })
    }

    /// What a function writes to where its pointer shows.
    fn value<T: Default>(&self, call: &'static str, ask: impl FnOnce(*mut T) -> i32) -> Result<T> {
        let mut value = T::default();
        self.check(call, ask(&raw mut value))?;
        Ok(value)
    }

    fn name(&self, device: i32) -> Result<String> {
        let mut name = [0u8; 256];
        // SAFETY: it writes at most so many bytes, the last of them zero.
        self.check("cuDeviceGetName", unsafe { (self.cuDeviceGetName)(name.as_mut_ptr(), name.len() as i32, device) })?;
        Ok(CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Address(u64),
    Count(u32),
    Number(f32),
}

/// The right to use the card, of one thread at a time.
pub(crate) struct Turn<'a> {
    pub(crate) card: &'a Card,
    _guard: MutexGuard<'a, ()>,
}

/// Threads per block.
const BLOCK: usize = 256;

impl Turn<'_> {
    /// Bytes of memory that are free.
    pub(crate) fn free_memory(&self) -> Result<u64> {
        let (driver, mut total) = (&self.card.driver, 0);
        let free = driver.value("cuMemGetInfo", |free| {
            // SAFETY: it writes two numbers to where the pointers show.
            unsafe { (driver.cuMemGetInfo_v2)(free, &raw mut total) }
        })?;
        Ok(free as u64)
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Result<u64> {
        let driver = &self.card.driver;
        driver.value("cuMemAlloc", |address| {
            // SAFETY: it writes one number to where the pointer shows.
            unsafe { (driver.cuMemAlloc_v2)(address, bytes) }
        })
    }

    /// Copies numbers to the card. They are the caller's again when it returns: the driver takes them from pageable memory first.
    pub(crate) fn upload(&self, numbers: &[f32], to: u64) -> Result<()> {
        let Card { driver, stream, .. } = self.card;
        let (from, bytes) = (numbers.as_ptr().cast(), size_of_val(numbers));
        // SAFETY: so many bytes are readable; the address is of a buffer of the same length (`Session::write`).
        driver.check("cuMemcpyHtoDAsync", unsafe { (driver.cuMemcpyHtoDAsync_v2)(to, from, bytes, *stream) })
    }

    /// Copies numbers from the card, after all that was asked before.
    pub(crate) fn download(&self, from: u64, numbers: &mut [f32]) -> Result<()> {
        let Card { driver, stream, .. } = self.card;
        let (to, bytes) = (numbers.as_mut_ptr().cast(), size_of_val(numbers));
        // SAFETY: so many bytes are writable, and exclusive until `wait` returns; the address is of a buffer of the same length.
        let code = unsafe { (driver.cuMemcpyDtoHAsync_v2)(to, from, bytes, *stream) };
        let asked = driver.check("cuMemcpyDtoHAsync", code);
        self.wait()?;
        asked
    }

    /// Waits until all is done that was asked.
    pub(crate) fn wait(&self) -> Result<()> {
        let Card { driver, stream, .. } = self.card;
        // SAFETY: the stream lives as long as the card.
        driver.check("cuStreamSynchronize", unsafe { (driver.cuStreamSynchronize)(*stream) })
    }

    /// Starts a kernel in at least so many threads.
    pub(crate) fn launch(&self, kernel: Kernel, threads: usize, values: &[Value]) -> Result<()> {
        let Card { driver, stream, functions, .. } = self.card;
        // Little-endian machines alone have such cards: a small number stands in the first bytes of its place.
        let places: Vec<u64> = values
            .iter()
            .map(|value| match *value {
                Value::Address(address) => address,
                Value::Count(count) => u64::from(count),
                Value::Number(number) => u64::from(number.to_bits()),
            })
            .collect();
        let pointers: Vec<*const u64> = places.iter().map(|place| &raw const *place).collect();
        let blocks = threads.div_ceil(BLOCK) as u32;
        let function = functions[kernel as usize];
        // SAFETY: the arguments are as many and as large as the kernel's (`kernels.rs` has one function per kernel, and a test compares
        // them with the source); they are copied before the call returns.
        let code =
            unsafe { (driver.cuLaunchKernel)(function, blocks, 1, 1, BLOCK as u32, 1, 1, 0, *stream, pointers.as_ptr(), 0) };
        driver.check("cuLaunchKernel", code)
    }
}

/// Gives memory back, once the work that uses it is done.
pub(crate) fn free(card: &Card, address: u64) {
    if card.bind().is_ok() {
        // SAFETY: the stream lives as long as the card; the address was got by `allocate`, is given back once and is not used after.
        unsafe {
            (card.driver.cuStreamSynchronize)(card.stream);
            (card.driver.cuMemFree_v2)(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_double::library;
    use super::super::testing::open;
    use super::*;
    use kinset_base::fault::Fault;

    fn refused(definitions: &[&str], index: usize) -> Option<GpuError> {
        let library = library(Path::new(env!("CARGO_MANIFEST_DIR")), definitions)?;
        Some(Card::open(&Libraries::both(&library), index).unwrap_err())
    }

    #[test]
    fn why_there_is_no_card_is_said_in_one_line() {
        let none = Libraries::both(Path::new("libcuda-that-is-not-there.so.1"));
        let error = Card::open(&none, 0).unwrap_err();
        assert_eq!(error.code(), "gpu::library");
        assert!(error.to_string().starts_with("`libcuda-that-is-not-there.so.1` cannot be loaded: "), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        let Some(error) = refused(&["DOUBLE_CARDS=0"], 0) else { return };
        assert_eq!(error.to_string(), "the driver finds no NVIDIA card");
        let error = refused(&[], 3).unwrap();
        assert_eq!(error.to_string(), "there is no card 3: the driver finds 1");
        let error = refused(&["DOUBLE_CAPABILITY=61"], 0).unwrap();
        assert_eq!(error.to_string(), "test double has compute capability 6.1; 7.5 is the least");
    }

    #[test]
    fn a_card_tells_what_it_is() {
        let Some(card) = open(&[]) else { return };
        assert_eq!((card.name(), card.capability(), card.driver_version().unwrap()), ("test double", 80, 12020));
    }

    /// The double is what all other tests lean on: what it must refuse, it refuses.
    #[test]
    fn the_double_refuses_what_a_card_would_not_forgive() {
        let Some(card) = open(&[]) else { return };
        let turn = card.turn().unwrap();
        let code = |result: Result<()>| match result {
            Err(GpuError::Call { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        let transpose = |from, to| {
            let [batch, rows, columns] = [1, 2, 3].map(Value::Count);
            turn.launch(Kernel::Transpose, 6, &[Value::Address(from), Value::Address(to), batch, rows, columns])
        };
        let [from, to] = [(); 2].map(|()| turn.allocate(24).unwrap());
        let mut back = [0.0; 6];
        turn.download(from, &mut back).unwrap();
        assert!(back.iter().all(|v| v.is_nan()), "fresh memory holds no numbers: {back:?}");
        turn.upload(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], from).unwrap();
        transpose(from, to).unwrap();
        // Nothing is done before somebody waits.
        let (mut early, bytes) = ([0.0f32; 6], 24);
        // SAFETY: so many bytes are writable, and it lives until `wait` has returned.
        let asked = unsafe { (card.driver.cuMemcpyDtoHAsync_v2)(early.as_mut_ptr().cast(), to, bytes, card.stream) };
        assert_eq!(asked, 0);
        let read_early = early;
        turn.wait().unwrap();
        assert!(read_early.iter().all(|v| v.is_nan()), "{read_early:?}");
        assert_eq!(early.map(f32::to_bits), [1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0].map(f32::to_bits));
        // Another stream, without waiting.
        let mut other = 0;
        // SAFETY: it writes one number to where the pointer shows.
        assert_eq!(unsafe { (card.driver.cuStreamCreate)(&raw mut other, NON_BLOCKING) }, 0);
        transpose(from, to).unwrap();
        // SAFETY: as above; the double refuses it.
        let asked = unsafe { (card.driver.cuMemcpyDtoHAsync_v2)(early.as_mut_ptr().cast(), to, bytes, other) };
        assert_eq!(asked, 719);
        turn.wait().unwrap();
        // Beyond the end, and after the end.
        assert_eq!(code(turn.upload(&[0.0; 7], from)), 1);
        free(card, from);
        assert_eq!(code(transpose(from, to)), 700);
        assert_eq!(code(turn.upload(&[0.0; 6], from)), 1);
        assert_eq!(code(turn.download(from + (1 << 50), &mut back)), 1);
        // Without a context.
        // SAFETY: zero stands for none.
        assert_eq!(unsafe { (card.driver.cuCtxSetCurrent)(0) }, 0);
        assert_eq!(code(turn.upload(&[0.0; 6], to)), 201);
    }
}
