use std::path::{Path, PathBuf};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A certificate of its own and the key to it.
    fn pair(&self, stem: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec![format!("{stem}.example")]).unwrap();
        self.write(&format!("{stem}.crt"), &made.cert.pem());
        self.write(&format!("{stem}.key"), &made.signing_key.serialize_pem());
        (self.path(&format!("{stem}.crt")), self.path(&format!("{stem}.key")))
    }
}

fn server_files(certificate: &Path, key: &Path) -> ServerFiles {
    ServerFiles { certificate: certificate.to_owned(), key: key.to_owned(), client_ca: None }
}

fn refusal(files: ServerFiles) -> (Part, String) {
    let error = Server::open(files).err().unwrap();
    (error.part, error.to_string())
}

#[test]
fn each_unusable_file_is_named_with_its_fault() {
    let folder = Folder::new();
    let (certificate, key) = folder.pair("a");
    let (_, other) = folder.pair("b");
    folder.write("empty", "");
    folder.write("broken", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let absent = folder.path("absent");
    let cases = [
        (server_files(&absent, &key), Part::Certificate, "cannot be read: No such file"),
        (server_files(&certificate, &absent), Part::Key, "cannot be read: No such file"),
        (server_files(&folder.path("empty"), &key), Part::Certificate, "no certificate"),
        (server_files(&key, &key), Part::Certificate, "no certificate"),
        (server_files(&folder.path("broken"), &key), Part::Certificate, "not PEM"),
        (server_files(&certificate, &certificate), Part::Key, "no private key"),
        (server_files(&certificate, &other), Part::Key, "not the key of the certificate"),
    ];
    for (files, part, fault) in cases {
        let (blamed, told) = refusal(files);
        assert_eq!(blamed, part, "{told}");
        assert!(told.contains(fault) && told.contains(part.key()), "{told}");
    }
    let files = ServerFiles { client_ca: Some(folder.path("empty")), ..server_files(&certificate, &key) };
    assert_eq!(refusal(files).0, Part::ClientCa);
}

#[test]
fn files_are_taken_on_when_two_looks_find_the_same_and_stay_when_they_are_bad() {
    let folder = Folder::new();
    let (certificate, key) = folder.pair("a");
    let server = Server::open(server_files(&certificate, &key)).unwrap();
    let first = server.current();
    let (next_certificate, next_key) = folder.pair("b");
    std::fs::copy(next_certificate, &certificate).unwrap();
    // The key has not come yet.
    server.look();
    assert!(Arc::ptr_eq(&first, &server.current()));
    std::fs::copy(next_key, &key).unwrap();
    server.look();
    assert!(Arc::ptr_eq(&first, &server.current()));
    server.look();
    let second = server.current();
    assert!(!Arc::ptr_eq(&first, &second));
    for bad in ["nonsense", ""] {
        folder.write("a.crt", bad);
        server.look();
        server.look();
        server.look();
        assert!(Arc::ptr_eq(&second, &server.current()));
    }
    std::fs::remove_file(&certificate).unwrap();
    server.look();
    assert!(Arc::ptr_eq(&second, &server.current()));
}

#[test]
fn a_client_without_files_believes_the_platforms_roots() {
    let client = Client::open(ClientFiles::default()).unwrap();
    assert_eq!(client.current().alpn_protocols, HTTP);
}

#[test]
fn a_clients_certificate_needs_its_own_key() {
    let folder = Folder::new();
    let ((certificate, key), (_, other)) = (folder.pair("a"), folder.pair("b"));
    let of = |key: PathBuf| ClientFiles { ca: Some(certificate.clone()), identity: Some((certificate.clone(), key)) };
    assert!(Client::open(of(key)).is_ok());
    assert_eq!(Client::open(of(other)).err().unwrap().part, Part::Key);
}
