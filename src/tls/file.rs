//! The files that certificates and keys stand in.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::error::{Fault, Part, TlsError};

/// Far more than a bundle of every public root.
const FILE_BYTES: u64 = 1 << 20;

/// One file as it was read.
pub struct Pem {
    part: Part,
    path: PathBuf,
    pub bytes: Zeroizing<Vec<u8>>,
}

impl Pem {
    pub fn read(part: Part, path: &Path) -> Result<Self, TlsError> {
        let refused = |fault| TlsError { part, path: Some(path.to_owned()), fault };
        let mut bytes = Zeroizing::new(Vec::new());
        let file = File::open(path).map_err(|error| refused(Fault::Unreadable(error)))?;
        file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| refused(Fault::Unreadable(error)))?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(refused(Fault::TooLarge));
        }
        Ok(Self { part, path: path.to_owned(), bytes })
    }

    pub fn find(files: &[Self], part: Part) -> Option<&Self> {
        files.iter().find(|file| file.part == part)
    }

    pub fn need(files: &[Self], part: Part) -> Result<&Self, TlsError> {
        let absent = if part == Part::Key { Fault::NoKey } else { Fault::NoCertificate };
        Self::find(files, part).ok_or(TlsError { part, path: None, fault: absent })
    }

    /// All of them, at least one.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all = CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        let all = all.map_err(|error| self.refused(Fault::NotPem(error.to_string())))?;
        if all.is_empty() { Err(self.refused(Fault::NoCertificate)) } else { Ok(all) }
    }

    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            PemError::NoItemsFound => self.refused(Fault::NoKey),
            // Its text might quote a line of the key.
            _ => self.refused(Fault::NotPem("a section is malformed".into())),
        })
    }

    pub fn refused(&self, fault: Fault) -> TlsError {
        TlsError { part: self.part, path: Some(self.path.clone()), fault }
    }
}
