//go:build onednn

#include <oneapi/dnnl/dnnl.hpp>

#include "onednn.h"

using namespace dnnl;
using type = memory::data_type;
using tag = memory::format_tag;

struct onednn {
	engine eng{engine::kind::cpu, 0};
	stream str{eng};
	matmul primitive;
	memory w, x, y;
};

onednn *onednn_load(int64_t m, int64_t k, int64_t n, const int8_t *w) try {
	auto *p = new onednn;
	memory::desc x({n, k}, type::u8, tag::ab), y({n, m}, type::s32, tag::ab);
	memory::desc any({k, m}, type::s8, tag::any), given({k, m}, type::s8, tag::ba);
	matmul::primitive_desc desc(matmul::desc(x, any, y), p->eng);
	p->primitive = matmul(desc);
	p->w = memory(desc.weights_desc(), p->eng);
	p->x = memory(x, p->eng, nullptr);
	p->y = memory(y, p->eng, nullptr);
	memory from(given, p->eng, const_cast<int8_t *>(w));
	reorder(from, p->w).execute(p->str, from, p->w);
	p->str.wait();
	return p;
} catch (const error &) {
	return nullptr;
}

int onednn_run(onednn *p, const uint8_t *x, int32_t *y) try {
	p->x.set_data_handle(const_cast<uint8_t *>(x));
	p->y.set_data_handle(y);
	p->primitive.execute(p->str, {{DNNL_ARG_SRC, p->x}, {DNNL_ARG_WEIGHTS, p->w}, {DNNL_ARG_DST, p->y}});
	p->str.wait();
	return 0;
} catch (const error &) {
	return 1;
}

void onednn_free(onednn *p) { delete p; }

int64_t onednn_version(void) {
	const dnnl_version_t *v = dnnl_version();
	return int64_t(v->major) << 32 | int64_t(v->minor) << 16 | v->patch;
}
