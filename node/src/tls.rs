//! `--tls`: https for browsers, beside http on the same port. Nothing between nodes uses it.
//!
//! The certificate that a browser sees lives in memory: it is made when it is first asked for, and anew
//! when this node is reached under another address or the old one gets old. What lasts is the
//! [`Authority`] that signs it, which people install on their devices.

pub mod authority;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use gemmesh_protocol::time::WallTime;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;

pub use authority::{Authority, AuthorityError, Name};

use crate::os;

/// A certificate is replaced when it is this old: a browser that was suspended, or whose clock is a few
/// weeks off, still finds a valid one.
const RENEW_MS: u64 = (authority::LEAF_DAYS / 2) * 86_400_000;
/// What is spoken over TLS; browsers ask.
const ALPN: &[u8] = b"http/1.1";

/// The https side of a node.
pub struct Tls {
    authority: Authority,
    leaf: Mutex<Option<Leaf>>,
}

struct Leaf {
    names: BTreeSet<Name>,
    made: WallTime,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// The https side of the node whose data is in `data_dir`; its authority is made if there is none.
    ///
    /// # Errors
    /// The authority's file can not be read or written, or is damaged.
    pub fn open(data_dir: &Path) -> Result<Self, AuthorityError> {
        Ok(Self {
            authority: Authority::open(data_dir)?,
            leaf: Mutex::default(),
        })
    }

    /// Who signs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What answers a handshake of a node that is called all of `names`, as far as the authority may vouch
    /// for them. Cost: a lock; a key and a signature when the certificate is made anew.
    ///
    /// # Panics
    /// When a certificate can not be made, which takes a broken build.
    pub fn config(&self, names: BTreeSet<Name>) -> Arc<ServerConfig> {
        self.config_at(names, os::wall())
    }

    fn config_at(&self, mut names: BTreeSet<Name>, now: WallTime) -> Arc<ServerConfig> {
        names.retain(authority::may_vouch_for);
        let mut leaf = self.leaf.lock().expect("no holder panics");
        let good = leaf
            .as_ref()
            // A clock that was set back made `made` a time to come.
            .is_some_and(|leaf| {
                names.is_subset(&leaf.names) && now.0.abs_diff(leaf.made.0) < RENEW_MS
            });
        if !good {
            let (chain, key) = self.authority.leaf(&names, now);
            let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
            let mut config = config.expect("a key of ours and its certificate");
            config.alpn_protocols = vec![ALPN.to_vec()];
            *leaf = Some(Leaf {
                names,
                made: now,
                config: Arc::new(config),
            });
        }
        leaf.as_ref().expect("made above").config.clone()
    }
}

/// What a node at these addresses is called in its certificate: the addresses, `localhost` when one of them
/// is the loopback, its `.local` name and what the operator allowed.
pub fn names<'a>(
    ips: impl IntoIterator<Item = IpAddr>,
    local: &'a str,
    allowed: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<Name> {
    let ips: BTreeSet<IpAddr> = ips.into_iter().map(|ip| ip.to_canonical()).collect();
    let here = ips.iter().any(IpAddr::is_loopback).then_some("localhost");
    let dns = here.into_iter().chain([local]).chain(allowed);
    let named = |host: &str| match host.parse() {
        Ok(ip) => Name::Ip(ip),
        Err(_) => Name::Dns(host.to_ascii_lowercase()),
    };
    // An allowed name may have a port, which a certificate does not know.
    let host = |name: &'a str| match name.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => name,
    };
    let dns: Vec<Name> = dns.map(|name| named(host(name))).collect();
    ips.into_iter().map(Name::Ip).chain(dns).collect()
}

#[cfg(test)]
mod tests;
