//! What is made once for each kernel: the folder that [`Kernel::load`](crate::kernel::Kernel::load) takes.
