/* Without private memory. */
static int is_protected(int id)
{
	(void)id;
	return 0;
}

static int is_private(int id, uint64_t page)
{
	(void)id, (void)page;
	return 0;
}

static void set_protected(int id)
{
	(void)id;
}

static void forget_protected(int id, int keep)
{
	(void)id, (void)keep;
}

static void unmap_private(uint64_t page, uint64_t pages)
{
	(void)page, (void)pages;
}
