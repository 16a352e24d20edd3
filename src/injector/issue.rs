//! A certificate for the webhook, and an authority that vouches for nothing else.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// How long both are valid.
pub const LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// When they are to be renewed: a job that fails has months to be noticed.
pub const RENEW_AFTER: Duration = Duration::from_secs(240 * 86_400);
/// For clocks that are behind.
const BEFORE: Duration = Duration::from_secs(3600);

/// All in PEM.
pub struct Issued {
    pub authority: String,
    pub certificate: String,
    pub key: Zeroizing<String>,
}

/// Makes a pair for these names. The authority's key is dropped: nobody can have it sign anything more.
pub fn issue(names: &[String], now: SystemTime) -> Result<Issued, rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = limited(CertificateParams::new(Vec::new())?, "cloakroom injector authority", now);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let signed = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let mut own = limited(CertificateParams::new(names.to_vec())?, "cloakroom injector", now);
    own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    own.use_authority_key_identifier_extension = true;
    let certificate = own.signed_by(&key, &issuer)?.pem();
    Ok(Issued { authority: signed, certificate, key: Zeroizing::new(key.serialize_pem()) })
}

fn limited(mut parameters: CertificateParams, name: &str, now: SystemTime) -> CertificateParams {
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = (now - BEFORE).into();
    parameters.not_after = (now + LIFETIME).into();
    parameters
}
