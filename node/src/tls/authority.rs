//! The certificate authority of a node: one key and one certificate in a file of the data directory, made on
//! first use. Everything about the certificate but its key is fixed, so that nodes that come to share a key
//! are one authority.
//!
//! Whoever installs the certificate trusts the key's holder, so the certificate says what that is good for:
//! addresses that the internet does not route and names that no public DNS gives out (RFC 5280, section
//! 4.2.1.10). With the key of a node nobody can pretend to be a bank.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use gemmesh_protocol::time::WallTime;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType, SerialNumber, date_time_ymd,
};
use ring::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{identity, os};

/// The authority's file in the data directory: its key, then its certificate.
pub const FILE: &str = "https-authority.pem";
/// How long a node's certificate is valid. Browsers refuse more than 398 days, iOS more than 825 also from
/// authorities that people installed.
pub const LEAF_DAYS: u64 = 90;
/// A device's clock may be this much behind.
const CLOCK_DAYS: u64 = 2;

const DAY: Duration = Duration::from_secs(86_400);

/// The networks that certificates may be for, as address and prefix length: those that `net::reach` calls
/// local.
const NETWORKS: [(&str, u8); 14] = [
    ("10.0.0.0", 8),
    ("172.16.0.0", 12),
    ("192.168.0.0", 16),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("100.64.0.0", 10),
    ("198.18.0.0", 15),
    ("192.0.2.0", 24),
    ("198.51.100.0", 24),
    ("203.0.113.0", 24),
    ("::1", 128),
    ("fc00::", 7),
    ("fe80::", 10),
    ("2001:db8::", 32),
];
/// The domains that certificates may be for: none of them is delegated in public DNS (RFC 6761, 6762, 8375,
/// ICANN's `.internal`; `lan` is what many home routers use).
const DOMAINS: [&str; 5] = ["localhost", "local", "home.arpa", "internal", "lan"];

/// What a certificate can be for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// An address.
    Ip(IpAddr),
    /// A host name, lower case.
    Dns(String),
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file can not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file holds no key with its certificate.
    #[error(
        "{FILE} is damaged ({0}); remove it to get a new one, which every device has to install again"
    )]
    Damaged(String),
}

/// A key that signs certificates, and the certificate that people install.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    name: String,
}

impl Authority {
    /// The authority in `data_dir`, made when there is none.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn open(data_dir: &Path) -> Result<Self, AuthorityError> {
        if let Some(known) = Self::load(data_dir)? {
            return Ok(known);
        }
        let damaged = |error: rcgen::Error| AuthorityError::Damaged(error.to_string());
        let key = KeyPair::generate().map_err(damaged)?;
        let certificate = params(&key).self_signed(&key).map_err(damaged)?;
        let file = key.serialize_pem() + &certificate.pem();
        identity::write_private(&data_dir.join(FILE), file.as_bytes())?;
        Ok(Self::of(key, certificate.der().clone()))
    }

    /// The authority in `data_dir`, if there is one.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn load(data_dir: &Path) -> Result<Option<Self>, AuthorityError> {
        let pem = match std::fs::read_to_string(data_dir.join(FILE)) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let damaged = |error: &dyn std::fmt::Display| AuthorityError::Damaged(error.to_string());
        let key = KeyPair::from_pem(&pem).map_err(|error| damaged(&error))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let certificate = certificate.map_err(|error| damaged(&error))?;
        // A certificate holds its public key as it is.
        let public = key.public_key_raw();
        if !certificate.windows(public.len()).any(|part| part == public) {
            return Err(damaged(&"the certificate is not that of the key"));
        }
        Ok(Some(Self::of(key, certificate)))
    }

    fn of(key: KeyPair, certificate: CertificateDer<'static>) -> Self {
        let name = common_name(&key);
        Self {
            issuer: Issuer::new(params(&key), key),
            certificate,
            name,
        }
    }

    /// What systems call it in their settings: `gemmesh CA` and eight digits that follow from the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate that people install, as DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its SHA-256 as systems show it: bytes in hexadecimal with colons between.
    pub fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &self.certificate);
        let bytes: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        bytes.join(":")
    }

    /// A fresh key and a certificate of it for `names`, valid from shortly before `now` for [`LEAF_DAYS`].
    ///
    /// # Panics
    /// When a name is no name.
    pub(super) fn leaf(
        &self,
        names: &BTreeSet<Name>,
        now: WallTime,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::default();
        let days = Duration::from_millis(now.0);
        let now = date_time_ymd(1970, 1, 1) + days;
        params.not_before = now - CLOCK_DAYS as u32 * DAY;
        params.not_after = now + LEAF_DAYS as u32 * DAY;
        params.serial_number = Some(serial());
        params.distinguished_name = called("gemmesh node");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name {
                Name::Ip(ip) => SanType::IpAddress(*ip),
                Name::Dns(name) => {
                    SanType::DnsName(name.as_str().try_into().expect("`may_vouch_for` looked"))
                }
            })
            .collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("the system's entropy source");
        let certificate = params.signed_by(&key, &self.issuer);
        let certificate = certificate.expect("plain names and a key of ours");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (vec![certificate.der().clone()], key.into())
    }
}

/// Whether certificates of an authority may be for `name`.
pub(super) fn may_vouch_for(name: &Name) -> bool {
    match name {
        Name::Ip(ip) => NETWORKS.iter().any(|network| contains(network, *ip)),
        Name::Dns(name) => {
            let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
            let label = |label: &str| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(plain)
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            };
            let within = |domain: &&str| {
                let rest = name.strip_suffix(*domain);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            name.len() <= 253 && name.split('.').all(label) && DOMAINS.iter().any(within)
        }
    }
}

fn contains((network, prefix): &(&str, u8), ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, true),
        IpAddr::V6(ip) => (ip.to_bits(), false),
    };
    let (network, ip) = (bits(network.parse().expect("an address")), bits(ip));
    network.1 == ip.1 && (network.0 ^ ip.0) >> (128 - u32::from(*prefix)) == 0
}

/// All of the certificate but its key and signature.
fn params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    // As long as the form of dates allows that every system reads (RFC 5280, section 4.1.2.5): there is no
    // way to give a new one to devices that have installed this one.
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.distinguished_name = called(&common_name(key));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let network = |(network, prefix): &(&str, u8)| {
        let network: IpAddr = network.parse().expect("an address");
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(network, *prefix))
    };
    let domain = |domain: &&str| GeneralSubtree::DnsName((*domain).to_owned());
    let networks = NETWORKS.iter().map(network);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: networks.chain(DOMAINS.iter().map(domain)).collect(),
        excluded_subtrees: Vec::new(),
    });
    params
}

/// Two authorities must not have one name: systems look issuers up by it.
fn common_name(key: &KeyPair) -> String {
    let hash = digest::digest(&digest::SHA256, key.public_key_raw());
    let mut name = String::from("gemmesh CA ");
    for byte in &hash.as_ref()[..4] {
        write!(name, "{byte:02x}").expect("a string grows");
    }
    name
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// One that no other certificate of this authority has.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = os::random();
    // Positive, and as long as it looks.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
