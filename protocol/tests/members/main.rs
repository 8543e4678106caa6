//! Members that lie: about each other, and about jobs.

mod impostors;
mod node;
mod usurpers;
