// SPDX-License-Identifier: GPL-2.0-only
// Open files: a table of the struct files that KVM makes, and calls of their operations.
#include <linux/kernel.h>
#include <linux/anon_inodes.h>
#include <linux/debugfs.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include "worker.h"

#define FILES 1024

static struct file device_file;
/* Number 0 is the device. */
static struct file *files[FILES];

int misc_register(struct miscdevice *misc)
{
	device_file.f_op = misc->fops;
	return 0;
}

static struct file *open_file(const struct file_operations *operations, void *private)
{
	struct file *file = worker_alloc(sizeof(*file), true);

	file->f_op = operations;
	file->private_data = private;
	return file;
}

int get_unused_fd_flags(unsigned int flags)
{
	int fd;

	for (fd = 1; fd < FILES; fd++)
		if (!files[fd])
			return fd;
	return -EMFILE;
}

void fd_install(unsigned int fd, struct file *file) { files[fd] = file; }

struct file *anon_inode_getfile(const char *name, const struct file_operations *operations, void *private, int flags)
{
	return open_file(operations, private);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
struct file *anon_inode_getfile_fmode(const char *name, const struct file_operations *operations, void *private, int flags, fmode_t mode)
{
	return open_file(operations, private);
}
struct vfsmount *kern_mount(struct file_system_type *type) { return worker_alloc(sizeof(struct vfsmount), true); }
void kern_unmount(struct vfsmount *mount) { worker_free(mount); }
#endif

int anon_inode_getfd(const char *name, const struct file_operations *operations, void *private, int flags)
{
	int fd = get_unused_fd_flags(flags);

	if (fd >= 0)
		fd_install(fd, open_file(operations, private));
	return fd;
}

static struct file *file_of(u32 fd) { return fd < FILES ? files[fd] : NULL; }

/* What the worker calls. */
void *worker_private_data(u32 fd)
{
	struct file *file = file_of(fd);

	return file ? file->private_data : NULL;
}

long worker_ioctl(u32 fd, unsigned int request, unsigned long argument)
{
	struct file *file = fd ? file_of(fd) : &device_file;
	long result;

	if (!file || !file->f_op->unlocked_ioctl)
		return -EBADF;
	result = file->f_op->unlocked_ioctl(file, request, argument);
	/* A signal that came for what is over now is of no use to what comes next. */
	clear_tsk_thread_flag(current, TIF_SIGPENDING);
	return result;
}

long worker_close(u32 fd)
{
	struct file *file = file_of(fd);

	if (!file)
		return -EBADF;
	files[fd] = NULL;
	if (file->f_op->release)
		file->f_op->release(NULL, file);
	worker_free(file);
	return 0;
}

/* debugfs is not there; KVM goes on without it. */
struct dentry *debugfs_create_dir(const char *name, struct dentry *parent) { return ERR_PTR(-ENODEV); }
struct dentry *debugfs_lookup(const char *name, struct dentry *parent) { return NULL; }
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
struct dentry *debugfs_create_file_full(const char *name, umode_t mode, struct dentry *parent, void *data, const void *aux, const struct file_operations *operations)
{
	return ERR_PTR(-ENODEV);
}
#else
struct dentry *debugfs_create_file(const char *name, umode_t mode, struct dentry *parent, void *data, const struct file_operations *operations)
{
	return ERR_PTR(-ENODEV);
}
#endif

/* User memory is mapped where the process says; a bad address is the worker's to notice. */
unsigned long _copy_from_user(void *to, const void __user *from, unsigned long bytes)
{
	return raw_copy_from_user(to, from, bytes);
}

unsigned long _copy_to_user(void __user *to, const void *from, unsigned long bytes)
{
	return raw_copy_to_user(to, from, bytes);
}

void *memdup_user(const void __user *from, size_t bytes)
{
	void *copy = worker_alloc(bytes, false);

	if (raw_copy_from_user(copy, from, bytes)) {
		worker_free(copy);
		return ERR_PTR(-EFAULT);
	}
	return copy;
}

void *vmemdup_user(const void __user *from, size_t bytes) { return memdup_user(from, bytes); }
