//! The command line as typed: raw flags. [`super::config`] turns those of `serve` into a
//! `NodeConfig`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::values::{Address, NodeUrl, Size, address, duration, label, node_url, size};

/// Where options of the node appear in its help.
const NODE: &str = "Options";
/// Where options that every command has for reaching a node appear.
const REACH: &str = "Which node";

const EXAMPLES: &str = "\
Examples:
  gemmesh                                  start a node; open the address it shows on a phone
  gemmesh multiply a.npy b.npy -o c.npy    C = A·B with the help of every device in the room
  gemmesh multiply a.csv b.csv             the same for small files, printed here
  gemmesh nodes                            which devices take part
  gemmesh doctor                           why devices do not find each other, and the fix
";

const TEMPLATE: &str = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Pools the devices in a room into one matrix multiplier.
#[derive(Debug, Parser)]
#[command(
    name = "gemmesh",
    version = super::version::line(),
    before_help = EXAMPLES,
    help_template = TEMPLATE,
    override_usage = "gemmesh [OPTIONS]\n       gemmesh <COMMAND>",
    args_conflicts_with_subcommands = true,
    after_help = "`gemmesh` alone takes the options of `gemmesh serve`; each can also be set as GEMMESH_OPTION.\n\
                  Exit codes: 0 done, 1 the job failed, 2 bad usage or bad input, 3 no node reached.",
    max_term_width = 100
)]
pub struct Cli {
    /// What to do; without one, a node is started.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the default command.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node on this device (the default)
    #[command(before_help = "\
Examples:
  gemmesh serve                        on port 8080, for everybody on this network
  gemmesh serve --name kitchen         shown to the others under this name
  gemmesh serve --peer 192.168.1.7     where multicast is blocked: say where another node is
  gemmesh serve --bind 127.0.0.1       for this device alone
", help_template = TEMPLATE)]
    Serve(ServeArgs),
    /// Multiply two matrices: C = A·B
    #[command(before_help = "\
Examples:
  gemmesh multiply a.npy b.npy -o c.npy      files by ending: .npy, .csv, .mtx
  gemmesh multiply a.csv b.csv               a small result is printed as CSV
  gemmesh multiply g.mtx g.mtx -o g2.mtx     sparse integers, exact
  cat a.csv | gemmesh multiply - b.csv       `-` is standard input (CSV)
  gemmesh multiply --batch list.txt -o out   many products as one job: `A B` in each line of the list
  gemmesh multiply a.npy b.npy --detach      do not wait; prints the job's id
", help_template = TEMPLATE)]
    Multiply(MultiplyArgs),
    /// List the jobs of the mesh
    #[command(before_help = "\
Examples:
  gemmesh jobs
  gemmesh jobs --json | jq '.[] | select(.state == \"running\") | .job'
", help_template = TEMPLATE)]
    Jobs(QueryArgs),
    /// Show one job and who computed what
    #[command(before_help = "\
Examples:
  gemmesh job 3f2a              the first digits of the id are enough
", help_template = TEMPLATE)]
    Job(JobArgs),
    /// Fetch the result of a job, as soon as it is done
    #[command(before_help = "\
Examples:
  gemmesh result 3f2a -o c.npy      files by ending: .npy, .csv, .mtx
  gemmesh result 3f2a               printed as CSV
", help_template = TEMPLATE)]
    Result(ResultArgs),
    /// Cancel a job
    #[command(before_help = "\
Examples:
  gemmesh cancel 3f2a
", help_template = TEMPLATE)]
    Cancel(JobArgs),
    /// List the devices of the mesh
    #[command(before_help = "\
Examples:
  gemmesh nodes
  gemmesh nodes --node 192.168.1.7
", help_template = TEMPLATE)]
    Nodes(QueryArgs),
    /// Measure this device's kernel next to its limit
    #[command(before_help = "\
Examples:
  gemmesh bench
  gemmesh bench --threads 2 --json
", help_template = TEMPLATE)]
    Bench(BenchArgs),
    /// Find out what is wrong with this device's network, and the fix
    #[command(before_help = "\
Examples:
  gemmesh doctor
  gemmesh doctor --port 9000 --json
", help_template = TEMPLATE)]
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    #[command(before_help = "\
Examples:
  gemmesh completions bash > ~/.local/share/bash-completion/completions/gemmesh
  gemmesh completions fish > ~/.config/fish/completions/gemmesh.fish
", help_template = TEMPLATE)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The options of a node.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = NODE)]
pub struct ServeArgs {
    /// TCP port of the page, the API and the mesh; 0 takes any free one
    #[arg(
        long,
        env = "GEMMESH_PORT",
        value_name = "PORT",
        default_value_t = 8080
    )]
    pub port: u16,
    /// Use this address alone, for HTTP and mDNS (default: all of this device)
    #[arg(long, env = "GEMMESH_BIND", value_name = "ADDR")]
    pub bind: Option<IpAddr>,
    /// What others call this device (default: the host name)
    #[arg(long, env = "GEMMESH_NAME", value_name = "NAME", value_parser = label)]
    pub name: Option<String>,
    /// Where identity, jobs and matrices live (default: the user's data directory)
    #[arg(long, env = "GEMMESH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Only devices with the same mesh name work together
    #[arg(long, env = "GEMMESH_MESH", value_name = "NAME", value_parser = label, default_value = "gemmesh")]
    pub mesh: String,
    /// Another node, for networks without multicast; may be repeated
    #[arg(long = "peer", env = "GEMMESH_PEER", value_name = "HOST:PORT", value_parser = address, value_delimiter = ',')]
    pub peers: Vec<Address>,
    /// Neither announce this node by mDNS nor look for others
    #[arg(long, env = "GEMMESH_NO_MDNS", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_mdns: bool,
    /// Threads that compute (default: one for each processor)
    #[arg(long, env = "GEMMESH_THREADS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// The most memory to use, such as 512M or 2G (default: half of this device's)
    #[arg(long, env = "GEMMESH_MEMORY", value_name = "SIZE", value_parser = size)]
    pub memory: Option<Size>,
    /// The most disk to use for matrices (default: half of what is free)
    #[arg(long, env = "GEMMESH_DISK", value_name = "SIZE", value_parser = size)]
    pub disk: Option<Size>,
    /// How many other nodes hold what is needed to continue a job when this one is gone, 0 to 3
    #[arg(long, env = "GEMMESH_BACKUPS", value_name = "N", value_parser = clap::value_parser!(u8).range(0..=3), default_value_t = 3)]
    pub backups: u8,
    /// How long results are kept, such as 2h or 30m
    #[arg(long, env = "GEMMESH_RESULT_TTL", value_name = "DURATION", value_parser = duration, default_value = "2h")]
    pub result_ttl: Duration,
    /// Answer requests for this host name too; may be repeated
    #[arg(
        long = "allow-host",
        env = "GEMMESH_ALLOW_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allow_hosts: Vec<String>,
    /// Answer https too, on the same port: /ca on the page says what for, and how devices come to trust it
    #[arg(long, env = "GEMMESH_TLS", value_parser = clap::builder::FalseyValueParser::new())]
    pub tls: bool,
    /// A QR code of this node's address (auto: on a terminal)
    #[arg(long, env = "GEMMESH_QR", value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub qr: When,
    #[command(flatten)]
    pub log: LogArgs,
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// How much is logged: error, warn, info, debug or trace
    #[arg(long, env = "GEMMESH_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How log lines look
    #[arg(long, env = "GEMMESH_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// When something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Which node is asked, and how the answer is printed.
#[derive(Debug, Clone, Args)]
pub struct QueryArgs {
    /// The node to ask, such as 192.168.1.7:8080 (default: the node of this device)
    #[arg(long, env = "GEMMESH_NODE", value_name = "URL", value_parser = node_url, help_heading = REACH)]
    pub node: Option<NodeUrl>,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// `multiply`.
#[derive(Debug, Args)]
pub struct MultiplyArgs {
    /// The left factor: .npy, .csv, .mtx, or `-` for CSV on standard input. An .npy of three dimensions
    /// is a stack of matrices: C is the stack of their products
    #[arg(required_unless_present = "batch")]
    pub a: Option<PathBuf>,
    /// The right factor; it has as many rows as A has columns
    #[arg(required_unless_present = "batch")]
    pub b: Option<PathBuf>,
    /// Many products as one job: each line of LIST (`-`: standard input) is `A B` or `A B C`, files
    /// relative to the list's folder; `#` begins a comment
    #[arg(long, value_name = "LIST", conflicts_with_all = ["a", "b"])]
    pub batch: Option<PathBuf>,
    /// Where C goes: .npy, .csv, .mtx, or `-` for CSV on standard output (the default). With --batch: a
    /// directory, a name with {} for the product's number, or one .npy for all products of one shape
    #[arg(short, long, value_name = "C", conflicts_with = "detach")]
    pub output: Option<PathBuf>,
    /// Element type (default: int if both files are of integers, f32 if both are f32, else f64)
    #[arg(long, value_name = "TYPE", value_enum)]
    pub dtype: Option<DtypeArg>,
    /// From whom the matrices are kept. plain: helpers see their parts. private: helpers learn nothing, as long as no
    /// more than T of them put together what they see; takes at least 2T + 1 of them, and more time. masked: two helpers,
    /// who together know everything
    #[arg(long, value_name = "MODE", value_enum, default_value_t = ModeArg::Plain)]
    pub mode: ModeArg,
    /// T of --mode private (default: 1)
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub colluders: Option<u32>,
    /// So many helpers more than --mode private needs, so that nothing is done again when as many fail (default: 0)
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(0..=64))]
    pub stragglers: Option<u32>,
    /// The same bits whichever devices compute
    #[arg(long)]
    pub reproducible: bool,
    /// Do not run it: print who would compute what, how long it would take, and why
    #[arg(long, conflicts_with_all = ["output", "detach", "timeout", "name", "batch"])]
    pub explain: bool,
    /// A name for the job
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub name: Option<String>,
    /// Do not wait: print the job's id and leave
    #[arg(long)]
    pub detach: bool,
    /// Cancel the job when it takes longer than this, such as 90s or 5m
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "detach")]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub query: QueryArgs,
}

/// `--dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// 64-bit floating point.
    F64,
    /// 32-bit floating point.
    F32,
    /// Exact integers of any size.
    Int,
}

impl DtypeArg {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            DtypeArg::F64 => "f64",
            DtypeArg::F32 => "f32",
            DtypeArg::Int => "int",
        }
    }
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// As they are.
    Plain,
    /// As two shares with opposite masks.
    Masked,
    /// As shares that tell nothing.
    Private,
}

impl ModeArg {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            ModeArg::Plain => "plain",
            ModeArg::Masked => "masked",
            ModeArg::Private => "private",
        }
    }
}

/// `job` and `cancel`.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job's id, or its first digits
    pub id: String,
    /// What was printed when a private job was submitted
    #[arg(
        long,
        env = "GEMMESH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    #[command(flatten)]
    pub query: QueryArgs,
}

/// `result`.
#[derive(Debug, Args)]
pub struct ResultArgs {
    /// The job's id, or its first digits
    pub id: String,
    /// Where it goes: .npy, .csv, .mtx, or `-` for CSV on standard output (the default); for a batch as
    /// with `multiply --batch`
    #[arg(short, long, value_name = "C")]
    pub output: Option<PathBuf>,
    /// What was printed when a private job was submitted
    #[arg(
        long,
        env = "GEMMESH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    #[command(flatten)]
    pub query: QueryArgs,
}

/// `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Threads of the second column (default: one for each processor)
    #[arg(long, env = "GEMMESH_THREADS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The port a node would use
    #[arg(
        long,
        env = "GEMMESH_PORT",
        value_name = "PORT",
        default_value_t = 8080
    )]
    pub port: u16,
    /// The only address a node would use
    #[arg(long, env = "GEMMESH_BIND", value_name = "ADDR")]
    pub bind: Option<IpAddr>,
    /// The data directory a node would use
    #[arg(long, env = "GEMMESH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}
