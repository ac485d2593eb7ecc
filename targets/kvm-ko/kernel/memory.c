// SPDX-License-Identifier: GPL-2.0-only
// Allocation: the kernel's signatures, the worker's heap.
#include <linux/kernel.h>
#include <linux/bug.h>
#include <linux/cpumask.h>
#include <linux/mm.h>
#include <linux/percpu_counter.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include "worker.h"

#define zeroed(flags) (!!((flags) & __GFP_ZERO))

void *__kmalloc_noprof(size_t size, gfp_t flags) { return worker_alloc(size, zeroed(flags)); }
void *__kmalloc_cache_noprof(struct kmem_cache *cache, gfp_t flags, size_t size) { return worker_alloc(size, zeroed(flags)); }
void *__kmalloc_large_noprof(size_t size, gfp_t flags) { return worker_alloc(size, zeroed(flags)); }
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
void *__kmalloc_node_noprof(DECL_BUCKET_PARAMS(size, buckets), gfp_t flags, int node) { return worker_alloc(size, zeroed(flags)); }
void *__kvmalloc_node_noprof(DECL_BUCKET_PARAMS(size, buckets), gfp_t flags, int node) { return worker_alloc(size, zeroed(flags)); }
#else
void *__kmalloc_node_noprof(DECL_KMALLOC_PARAMS(size, buckets, token), gfp_t flags, int node) { return worker_alloc(size, zeroed(flags)); }
void *__kvmalloc_node_noprof(DECL_KMALLOC_PARAMS(size, buckets, token), unsigned long align, gfp_t flags, int node)
{
	return worker_alloc(size, zeroed(flags));
}
struct page *alloc_pages_node_noprof(int node, gfp_t flags, unsigned int order) { return alloc_pages_noprof(flags, order); }
#endif

/* What vmalloc gives begins a page. */
static void *whole_pages(unsigned long size, bool zero) { return worker_alloc_pages(get_order(size), zero); }
void *__vmalloc_noprof(unsigned long size, gfp_t flags) { return whole_pages(size, zeroed(flags)); }
void *vzalloc_noprof(unsigned long size) { return whole_pages(size, true); }
void *__vcalloc_noprof(size_t n, size_t size, gfp_t flags) { return worker_alloc(n * size, true); }
struct page *vmalloc_to_page(const void *address) { return virt_to_page(address); }

void kfree(const void *object)
{
	if (!ZERO_OR_NULL_PTR(object))
		worker_free(object);
}
void kvfree(const void *object) { kfree(object); }
void vfree(const void *object) { kfree(object); }

struct kmem_cache {
	unsigned int size;
	void (*constructor)(void *);
};

struct kmem_cache *__kmem_cache_create_args(const char *name, unsigned int size, struct kmem_cache_args *args, slab_flags_t flags)
{
	struct kmem_cache *cache = worker_alloc(sizeof(*cache), true);

	cache->size = size;
	cache->constructor = args->ctor;
	return cache;
}

void kmem_cache_destroy(struct kmem_cache *cache) { kfree(cache); }

void *kmem_cache_alloc_noprof(struct kmem_cache *cache, gfp_t flags)
{
	void *object = worker_alloc(cache->size, zeroed(flags));

	if (cache->constructor)
		cache->constructor(object);
	return object;
}

void *kmem_cache_alloc_lru_noprof(struct kmem_cache *cache, struct list_lru *lru, gfp_t flags)
{
	return kmem_cache_alloc_noprof(cache, flags);
}

void kmem_cache_free(struct kmem_cache *cache, void *object) { kfree(object); }

struct page *alloc_pages_noprof(gfp_t flags, unsigned int order) { return virt_to_page(worker_alloc_pages(order, zeroed(flags))); }
struct page *__alloc_pages_noprof(gfp_t flags, unsigned int order, int node, nodemask_t *nodes) { return alloc_pages_noprof(flags, order); }
unsigned long get_free_pages_noprof(gfp_t flags, unsigned int order) { return (unsigned long)worker_alloc_pages(order, zeroed(flags)); }
unsigned long get_zeroed_page_noprof(gfp_t flags) { return (unsigned long)worker_alloc_pages(0, true); }

void free_pages(unsigned long address, unsigned int order)
{
	if (address)
		worker_free_pages((void *)address, order);
}

void __free_pages(struct page *page, unsigned int order) { worker_free_pages(page_address(page), order); }

void __percpu *pcpu_alloc_noprof(size_t size, size_t align, bool reserved, gfp_t flags)
{
	return (void __percpu *)worker_alloc_percpu(size, align);
}

int __percpu_counter_init_many(struct percpu_counter *counters, s64 amount, gfp_t flags, u32 n, struct lock_class_key *key)
{
	for (; n; n--, counters++)
		counters->count = amount;
	return 0;
}

void percpu_counter_add_batch(struct percpu_counter *counter, s64 amount, s32 batch) { counter->count += amount; }

bool alloc_cpumask_var_node(cpumask_var_t *mask, gfp_t flags, int node)
{
	*mask = worker_alloc(sizeof(struct cpumask), true);
	return true;
}

void free_cpumask_var(cpumask_var_t mask) { kfree(mask); }

/* Layouts that the worker has to know. */
const unsigned long worker_bug_entry = sizeof(struct bug_entry);
const unsigned long worker_page_refcount = offsetof(struct page, _refcount), worker_page_size = sizeof(struct page);
