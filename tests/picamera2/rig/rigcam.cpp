/*
 * rigcam.cpp - an out-of-tree libcamera pipeline handler ("rigcam") of simulated Raspberry Pi cameras.
 *
 * It is preloaded beside the distribution's own libcamera.so (LD_PRELOAD) and registers itself there.
 * To the application a rigcam camera looks like a camera on a Pi: main + lores + raw streams, the Pi's
 * RGB/YUV formats with padded strides, sensor modes, single-plane contiguous buffers, controls,
 * per-frame metadata, a free-running sensor clock. It uses neither V4L2 nor an IPA.
 *
 * Environment (read when the camera manager starts, unless said otherwise):
 *   RIG_CAMERAS     models, ',' between them: imx708 imx477 imx219 imx296 ov5647   (default "imx708")
 *   RIG_PLATFORM    vc4 (stride in 32 byte steps, packed raw) or pisp (64 byte steps, 16 bit raw)
 *   RIG_LATENCY_MS  start of frame -> request completed (default: the mode's readout time + 3 ms)
 *   RIG_START_MS    camera start() -> first start of frame (default 0; read at each start)
 *   RIG_STARTUP     first frames of each start() delivered with status FrameStartup (default 0)
 *   RIG_MOTION      0: nothing moves but the marker (default 1; read at configure)
 *   RIG_NOISE       amplitude of noise in the picture, 0..64 (default 0; read at configure)
 *   RIG_IMAGE       a binary PPM (P6, 8 bit) to show in place of colour bars (read at configure)
 *   RIG_FPS_SCALE   sensor modes are so many times faster than the real sensor's (default 1)
 *   RIG_LUX         illuminance of the scene until RIG_CTL says otherwise (default 400, see exposure.hpp)
 *   RIG_FORMATS     the only output formats offered, ',' between libcamera's names (default: all; read at configure)
 *   RIG_DELAY       frames from a request's controls to the frame they act on (default 2)
 *   RIG_CTL         a directory whose files steer camera N while it runs:
 *                     lux-N       the illuminance of its scene, a number of lux
 *                     stall-N     delivers nothing
 *                     error-N     frames arrive, marked as damaged
 *                     short-N     frames arrive with half of their bytes
 *                     unplug-N    the cable is pulled: what is queued fails, nothing comes, start fails with ENODEV,
 *                                 and a new camera manager does not see it
 *                     hangstop-N  stop does not return while the file is there
 *                     sync        kept by rigcam itself: when the SyncMode server's last frame began
 *
 * Camera N is locked while it is acquired, as a media device is: by lockf on /dev/mediaN, an ordinary file here.
 * The picture's brightness follows light, exposure and gain, with an auto-exposure like the Pi's: exposure.hpp.
 * SyncMode (0 off, 1 server, 2 client), SyncReady and SyncTimer are Raspberry Pi's own controls, which Debian's
 * libcamera lacks: a client stretches its frames until it starts them together with the server's.
 *
 * Every frame bears a marker in its top left corner: 40 black or white square cells in a row, each
 * max(8, width/64 rounded down to 8) pixels: 1 0 1 0, then 32 bits of frame sequence, then 4 bits of
 * camera number, most significant bit first. It survives any of the formats and JPEG/H.264.
 */
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libcamera/camera.h>
#include <libcamera/color_space.h>
#include <libcamera/control_ids.h>
#include <libcamera/formats.h>
#include <libcamera/property_ids.h>
#include <libcamera/request.h>
#include <libcamera/stream.h>

#include "libcamera/internal/camera.h"
#include "libcamera/internal/dma_buf_allocator.h"
#include "libcamera/internal/framebuffer.h"
#include "libcamera/internal/pipeline_handler.h"
#include "libcamera/internal/request.h"

#include "exposure.hpp"

using namespace libcamera;
using namespace std::chrono_literals;

namespace {

using Clock = std::chrono::steady_clock;

const char *env(const char *name, const char *def)
{
	const char *e = getenv(name);
	return e && *e ? e : def;
}

/* RIG_CTL/name-N */
std::string ctl(const char *name, int camera)
{
	return std::string(env("RIG_CTL", "/nonexistent")) + "/" + name + "-" + std::to_string(camera);
}

bool told(const char *name, int camera) { return !access(ctl(name, camera).c_str(), F_OK); }

double number(const std::string &path, double otherwise)
{
	double value = otherwise;
	if (FILE *f = fopen(path.c_str(), "r")) {
		if (fscanf(f, "%lf", &value) != 1)
			value = otherwise;      /* being written */
		fclose(f);
	}
	return value;
}

bool pisp() { return !strcmp(env("RIG_PLATFORM", "vc4"), "pisp"); }

/* ------------------------------------------------------------------ sensors */

struct Mode {
	unsigned width, height, bits;
	double fps;             /* highest frame rate */
	Rectangle crop;         /* of the pixel array */
};

struct Sensor {
	const char *model;
	Size array;
	int32_t cellNm;
	float maxGain;
	bool autofocus, mono;
	std::vector<Mode> modes;
};

const std::vector<Sensor> &sensors()
{
	static const std::vector<Sensor> all = {
		{ "imx708", { 4608, 2592 }, 1400, 16, true, false,
		  { { 1536, 864, 10, 120.13, { 768, 432, 3072, 1728 } },
		    { 2304, 1296, 10, 56.03, { 0, 0, 4608, 2592 } },
		    { 4608, 2592, 10, 14.35, { 0, 0, 4608, 2592 } } } },
		{ "imx477", { 4056, 3040 }, 1550, 22.26f, false, false,
		  { { 1332, 990, 10, 120.05, { 696, 528, 2664, 1980 } },
		    { 2028, 1080, 12, 50.03, { 0, 440, 4056, 2160 } },
		    { 2028, 1520, 12, 40.01, { 0, 0, 4056, 3040 } },
		    { 4056, 3040, 12, 10.0, { 0, 0, 4056, 3040 } } } },
		{ "imx219", { 3280, 2464 }, 1120, 10.67f, false, false,
		  { { 640, 480, 10, 103.33, { 1000, 752, 1280, 960 } },
		    { 1640, 1232, 10, 41.85, { 0, 0, 3280, 2464 } },
		    { 1920, 1080, 10, 47.57, { 680, 692, 1920, 1080 } },
		    { 3280, 2464, 10, 21.19, { 0, 0, 3280, 2464 } } } },
		{ "imx296", { 1456, 1088 }, 3450, 16, false, false,
		  { { 1456, 1088, 10, 60.38, { 0, 0, 1456, 1088 } } } },
		{ "ov5647", { 2592, 1944 }, 1400, 63.94f, false, false,
		  { { 640, 480, 10, 58.92, { 16, 0, 2560, 1920 } },
		    { 1296, 972, 10, 46.34, { 0, 0, 2592, 1944 } },
		    { 1920, 1080, 10, 32.81, { 348, 434, 1928, 1080 } },
		    { 2592, 1944, 10, 15.63, { 0, 0, 2592, 1944 } } } },
	};
	return all;
}

/* ------------------------------------------------------------------ pixel formats */

enum class Kind { Rgb, Yuv420, Nv, Yuyv, Raw16, RawCsi2p };

struct Format {
	PixelFormat fourcc;
	Kind kind;
	int a, b;  /* Rgb: bytes/pixel, red first?  Yuv420/Nv: swap U and V?  Yuyv: Y offset, swap?  Raw: bits */
};

const std::vector<Format> &formatTable()
{
	static const std::vector<Format> t = {
		/* libcamera names these as DRM does: RGB888 is B,G,R in memory, BGR888 is R,G,B */
		{ formats::RGB888, Kind::Rgb, 3, 0 },   { formats::BGR888, Kind::Rgb, 3, 1 },
		{ formats::XRGB8888, Kind::Rgb, 4, 0 }, { formats::XBGR8888, Kind::Rgb, 4, 1 },
		{ formats::YUV420, Kind::Yuv420, 0, 0 }, { formats::YVU420, Kind::Yuv420, 1, 0 },
		{ formats::NV12, Kind::Nv, 0, 0 },      { formats::NV21, Kind::Nv, 1, 0 },
		{ formats::YUYV, Kind::Yuyv, 0, 0 },    { formats::YVYU, Kind::Yuyv, 0, 1 },
		{ formats::UYVY, Kind::Yuyv, 1, 0 },    { formats::VYUY, Kind::Yuyv, 1, 1 },
		{ formats::SBGGR10_CSI2P, Kind::RawCsi2p, 10, 0 }, { formats::SBGGR12_CSI2P, Kind::RawCsi2p, 12, 0 },
		{ formats::SBGGR10, Kind::Raw16, 10, 0 }, { formats::SBGGR12, Kind::Raw16, 12, 0 },
		{ formats::SBGGR16, Kind::Raw16, 16, 0 },
	};
	return t;
}

const Format *format(const PixelFormat &p)
{
	for (const Format &f : formatTable())
		if (f.fourcc == p)
			return &f;
	return nullptr;
}

bool isRaw(const PixelFormat &p)
{
	const Format *f = format(p);
	return f && (f->kind == Kind::Raw16 || f->kind == Kind::RawCsi2p);
}

std::vector<PixelFormat> rawFormats(unsigned bits)
{
	if (pisp())
		return { formats::SBGGR16 };
	if (bits == 12)
		return { formats::SBGGR12_CSI2P, formats::SBGGR12 };
	return { formats::SBGGR10_CSI2P, formats::SBGGR10 };
}

std::vector<PixelFormat> outputFormats()
{
	std::string only = std::string(",") + env("RIG_FORMATS", "") + ",";
	std::vector<PixelFormat> out;
	for (const Format &f : formatTable())
		if (!isRaw(f.fourcc) && (only == ",," || only.find("," + f.fourcc.toString() + ",") != std::string::npos))
			out.push_back(f.fourcc);
	return out;
}

unsigned minStride(const Format &f, unsigned w)
{
	switch (f.kind) {
	case Kind::Rgb: return w * f.a;
	case Kind::Yuyv: case Kind::Raw16: return w * 2;
	case Kind::RawCsi2p: return w * f.a / 8;
	default: return w;
	}
}

unsigned alignedStride(const Format &f, unsigned w)
{
	unsigned align = pisp() ? 64 : 32;
	if (f.kind == Kind::Yuv420)
		align *= 2;     /* the chroma planes have half the stride */
	return (minStride(f, w) + align - 1) / align * align;
}

unsigned frameSize(const Format &f, unsigned stride, unsigned h)
{
	return f.kind == Kind::Yuv420 || f.kind == Kind::Nv ? stride * h / 2 * 3 : stride * h;
}

/* RGB -> Y'CbCr in 16.16 fixed point */
struct Matrix {
	int y[3], u[3], v[3], yoff;
	Matrix(const std::optional<ColorSpace> &cs = std::nullopt)
	{
		bool r709 = cs && cs->ycbcrEncoding == ColorSpace::YcbcrEncoding::Rec709;
		bool full = !cs || cs->range == ColorSpace::Range::Full;
		double kr = r709 ? 0.2126 : 0.299, kb = r709 ? 0.0722 : 0.114, kg = 1 - kr - kb;
		double ys = full ? 1 : 219 / 255.0, cs2 = full ? 1 : 224 / 255.0;
		auto fix = [](double d) { return (int)std::lround(d * 65536); };
		y[0] = fix(kr * ys); y[1] = fix(kg * ys); y[2] = fix(kb * ys);
		u[0] = fix(-kr / (2 * (1 - kb)) * cs2); u[1] = fix(-kg / (2 * (1 - kb)) * cs2); u[2] = fix(0.5 * cs2);
		v[0] = fix(0.5 * cs2); v[1] = fix(-kg / (2 * (1 - kr)) * cs2); v[2] = fix(-kb / (2 * (1 - kr)) * cs2);
		yoff = full ? 0 : 16;
	}
	static uint8_t clip(int v) { return v < 0 ? 0 : v > 255 ? 255 : v; }
	uint8_t Y(const uint8_t *p) const { return clip(((y[0] * p[0] + y[1] * p[1] + y[2] * p[2] + 32768) >> 16) + yoff); }
	uint8_t U(const uint8_t *p) const { return clip(((u[0] * p[0] + u[1] * p[1] + u[2] * p[2] + 32768) >> 16) + 128); }
	uint8_t V(const uint8_t *p) const { return clip(((v[0] * p[0] + v[1] * p[1] + v[2] * p[2] + 32768) >> 16) + 128); }
};

/* Where and how one stream's pictures lie in memory */
struct Canvas {
	Format fmt;
	unsigned w, h, stride, size;
	Matrix m;

	/* Write n pixels (RGB triples) of row y from column x on; x and n multiples of 4 or up to the row's end. */
	void put(uint8_t *buf, unsigned x, unsigned y, unsigned n, const uint8_t *rgb) const
	{
		uint8_t *row = buf + (size_t)y * stride;
		switch (fmt.kind) {
		case Kind::Rgb: {
			uint8_t *d = row + x * fmt.a;
			for (unsigned i = 0; i < n; i++, d += fmt.a, rgb += 3) {
				d[0] = rgb[fmt.b ? 0 : 2];
				d[1] = rgb[1];
				d[2] = rgb[fmt.b ? 2 : 0];
				if (fmt.a == 4)
					d[3] = 255;
			}
			break;
		}
		case Kind::Yuv420: {
			for (unsigned i = 0; i < n; i++)
				row[x + i] = m.Y(rgb + 3 * i);
			if (y & 1)
				break;
			size_t q = (size_t)(stride / 2) * (h / 2);
			uint8_t *c = buf + (size_t)stride * h + (size_t)(y / 2) * (stride / 2) + x / 2;
			uint8_t *u = c + (fmt.a ? q : 0), *v = c + (fmt.a ? 0 : q);
			for (unsigned i = 0; i < n; i += 2) {
				*u++ = m.U(rgb + 3 * i);
				*v++ = m.V(rgb + 3 * i);
			}
			break;
		}
		case Kind::Nv: {
			for (unsigned i = 0; i < n; i++)
				row[x + i] = m.Y(rgb + 3 * i);
			if (y & 1)
				break;
			uint8_t *c = buf + (size_t)stride * h + (size_t)(y / 2) * stride + x;
			for (unsigned i = 0; i < n; i += 2, c += 2) {
				c[fmt.a] = m.U(rgb + 3 * i);
				c[!fmt.a] = m.V(rgb + 3 * i);
			}
			break;
		}
		case Kind::Yuyv: {
			uint8_t *d = row + x * 2;
			for (unsigned i = 0; i < n; i += 2, d += 4) {
				const uint8_t *p = rgb + 3 * i;
				d[fmt.a] = m.Y(p);
				d[fmt.a + 2] = m.Y(p + 3);
				d[!fmt.a + (fmt.b ? 2 : 0)] = m.U(p);
				d[!fmt.a + (fmt.b ? 0 : 2)] = m.V(p);
			}
			break;
		}
		default: {      /* Bayer BGGR: even rows B G, odd rows G R */
			auto comp = [&](unsigned i) { return rgb[3 * i + (((x + i) & 1) == (y & 1) ? ((y & 1) ? 0 : 2) : 1)]; };
			if (fmt.kind == Kind::Raw16) {
				uint16_t *d = (uint16_t *)row + x;
				for (unsigned i = 0; i < n; i++)
					d[i] = comp(i) << (fmt.a - 8);
			} else if (fmt.a == 10) {
				uint8_t *d = row + x / 4 * 5;
				for (unsigned i = 0; i + 3 < n; i += 4, d += 5) {
					for (unsigned k = 0; k < 4; k++)
						d[k] = comp(i + k);
					d[4] = 0;       /* the low bits of the four */
				}
			} else {
				uint8_t *d = row + x / 2 * 3;
				for (unsigned i = 0; i + 1 < n; i += 2, d += 3) {
					d[0] = comp(i);
					d[1] = comp(i + 1);
					d[2] = 0;
				}
			}
		}
		}
	}

	void rect(uint8_t *buf, unsigned x, unsigned y, unsigned rw, unsigned rh, uint8_t r, uint8_t g, uint8_t b) const
	{
		x &= ~3u; y &= ~1u; rw &= ~3u;
		if (x >= w || y >= h)
			return;
		rw = std::min(rw, (w - x) & ~3u);
		rh = std::min(rh, h - y);
		std::vector<uint8_t> line(rw * 3);
		for (unsigned i = 0; i < rw; i++) {
			line[3 * i] = r; line[3 * i + 1] = g; line[3 * i + 2] = b;
		}
		for (unsigned i = 0; i < rh; i++)
			put(buf, x, y + i, rw, line.data());
	}
};

/* ------------------------------------------------------------------ the picture */

struct Ppm {
	unsigned w = 0, h = 0;
	std::vector<uint8_t> rgb;
	explicit Ppm(const char *path)
	{
		FILE *f = path && *path ? fopen(path, "rb") : nullptr;
		unsigned max = 0;
		if (!f)
			return;
		if (fscanf(f, "P6 %u %u %u", &w, &h, &max) == 3 && max == 255 && fgetc(f) != EOF) {
			rgb.resize((size_t)w * h * 3);
			if (fread(rgb.data(), 1, rgb.size(), f) != rgb.size())
				rgb.clear();
		}
		fclose(f);
	}
};

class Scene
{
public:
	Scene(const Canvas &c, int camera) : c_(c), camera_(camera), motion_(atoi(env("RIG_MOTION", "1")))
	{
		/* not down to 0: pure colours would never wash out, however much they were over-exposed */
		static const uint8_t bars[8][3] = { { 255, 255, 255 }, { 255, 255, 24 }, { 24, 255, 255 }, { 24, 255, 24 },
						    { 255, 24, 255 }, { 255, 24, 24 }, { 24, 24, 255 }, { 24, 24, 24 } };
		noise_ = std::clamp(atoi(env("RIG_NOISE", "0")), 0, 64);
		Ppm image(env("RIG_IMAGE", ""));
		rows_ = image.rgb.empty() ? 1 : c.h;    /* bars: every row is the same */
		drawn_.resize((size_t)rows_ * c.w * 3);
		for (unsigned y = 0; y < rows_; y++)
			for (unsigned x = 0; x < c.w; x++) {
				const uint8_t *p = image.rgb.empty()
					? bars[std::min(7u, x * 8 / c.w)]
					: &image.rgb[((size_t)(y * image.h / c.h) * image.w + x * image.w / c.w) * 3];
				memcpy(&drawn_[((size_t)y * c.w + x) * 3], p, 3);
			}
		back_.assign(noise_ ? 4 : 1, std::vector<uint8_t>(c.size));
		develop();
	}

	/* tones: of red, green and blue */
	void draw(uint8_t *buf, uint32_t seq, const std::array<rig::Tone, 3> &tones)
	{
		if (tones != tones_) {
			tones_ = tones;
			develop();
		}
		memcpy(buf, back_[seq % back_.size()].data(), c_.size);
		if (motion_) {
			unsigned s = std::max(16u, c_.h / 8) & ~3u, run = c_.w > s ? c_.w - s : 1;
			unsigned at = seq * std::max(4u, c_.w / 160) % (2 * run);
			uint8_t grey[3];
			for (int k = 0; k < 3; k++)
				grey[k] = tones_[k].curve()[128];
			c_.rect(buf, at < run ? at : 2 * run - at, c_.h / 2, s, s, grey[0], grey[1], grey[2]);
		}
		unsigned cell = std::max(8u, c_.w / 64 & ~7u);
		uint64_t bits = 0xaull << 36 | (uint64_t)seq << 4 | (camera_ & 15);
		for (unsigned i = 0; i < 40; i++) {
			uint8_t v = bits >> (39 - i) & 1 ? 255 : 0;
			c_.rect(buf, i * cell, 0, cell, cell, v, v, v);
		}
	}

	const Canvas &canvas() const { return c_; }

private:
	/* the drawn picture as this exposure shows it, in the stream's format */
	void develop()
	{
		std::array<std::array<uint8_t, 256>, 3> curves{ tones_[0].curve(), tones_[1].curve(), tones_[2].curve() };
		std::vector<uint8_t> line(c_.w * 3 + 12);
		std::minstd_rand rng(1 + camera_);
		for (auto &b : back_)
			for (unsigned y = 0; y < c_.h; y++) {
				const uint8_t *from = &drawn_[(size_t)(y % rows_) * c_.w * 3];
				for (unsigned x = 0; (y < rows_ || noise_) && x < c_.w; x++) {
					int n = noise_ ? (int)((rng() >> 8) % (2 * noise_ + 1)) - noise_ : 0;
					for (int k = 0; k < 3; k++)
						line[3 * x + k] = Matrix::clip(curves[k][from[3 * x + k]] + n);
				}
				c_.put(b.data(), 0, y, c_.w, line.data());
			}
	}

	Canvas c_;
	int camera_, motion_, noise_ = 0;
	unsigned rows_ = 1;
	std::array<rig::Tone, 3> tones_;
	std::vector<uint8_t> drawn_;            /* RGB */
	std::vector<std::vector<uint8_t>> back_;
};

/* ------------------------------------------------------------------ the camera */

/* Raspberry Pi's vendor controls for software synchronisation, as in their libcamera's control_ids_rpi.yaml */
const Control<int32_t> SyncMode(20019, "SyncMode", "rpi", ControlId::Direction::In);
const Control<bool> SyncReady(20020, "SyncReady", "rpi", ControlId::Direction::Out);
const Control<int64_t> SyncTimer(20021, "SyncTimer", "rpi", ControlId::Direction::Out);

struct Settings {
	int64_t durMin = 33333, durMax = 250000000;
	int32_t exposure = 10000;
	float gain = 1.5f, digital = 1.0f;
	bool manualExposure = false, manualGain = false, longExposures = false;
	float ev = 0, brightness = 0, contrast = 1;
	int32_t sync = 0;
	float redGain = 1.8f, blueGain = 1.6f;
	int32_t temperature = 4500;
	Rectangle crop;
	int32_t afMode = controls::AfModeManual;
	float lens = 1.0f;
};

class RigPipeline;

class RigCamera : public Camera::Private
{
public:
	RigCamera(PipelineHandler *pipe, const Sensor &s, int number)
		: Camera::Private(pipe), sensor(s), number(number), mode(s.modes.back())
	{
		std::stringstream ss;
		ss << "/base/soc/i2c0mux/i2c@" << (number ? 0 : 1) << "/" << s.model << "@" << 10 + number;
		id = ss.str();
		properties_.set(properties::Model, std::string_view(s.model));
		properties_.set(properties::Location, properties::CameraLocationBack);
		properties_.set(properties::Rotation, 180);
		properties_.set(properties::PixelArraySize, s.array);
		properties_.set(properties::PixelArrayActiveAreas, { Rectangle(s.array) });
		properties_.set(properties::UnitCellSize, Size(s.cellNm, s.cellNm));
		properties_.set(properties::ScalerCropMaximum, Rectangle(s.array));
		properties_.set(properties::SensorSensitivity, 1.0f);
		properties_.set(properties::draft::ColorFilterArrangement, properties::draft::BGGR);
		advertise();
	}

	~RigCamera() { halt(); }

	int64_t modeDuration() const { return (int64_t)std::ceil(1e6 / mode.fps / atof(env("RIG_FPS_SCALE", "1"))); }

	/* libcamera's list of controls with ours in it; its Python bindings look metadata up there */
	static const ControlIdMap &knownControls()
	{
		auto &known = const_cast<ControlIdMap &>(controls::controls);
		for (const ControlId *id : { (const ControlId *)&SyncMode, (const ControlId *)&SyncReady, (const ControlId *)&SyncTimer })
			known.emplace(id->id(), id);
		return known;
	}

	bool lockDevice()
	{
		if (lockFd_ < 0)
			lockFd_ = open(("/dev/media" + std::to_string(number)).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		return lockFd_ >= 0 && !lockf(lockFd_, F_TLOCK, 0);
	}

	void unlockDevice()
	{
		if (lockFd_ >= 0)
			close(lockFd_);
		lockFd_ = -1;
	}

	void advertise()
	{
		using namespace libcamera::controls;
		ControlInfoMap::Map c;
		c[&AeEnable] = ControlInfo(false, true, true);
		c[&AeMeteringMode] = ControlInfo(0, 3, 0);
		c[&AeConstraintMode] = ControlInfo(0, 3, 0);
		c[&AeExposureMode] = ControlInfo(0, 3, 0);
		c[&AeFlickerMode] = ControlInfo(0, 1, 0);
		c[&AeFlickerPeriod] = ControlInfo(100, 1000000);
		c[&ExposureValue] = ControlInfo(-8.0f, 8.0f, 0.0f);
		c[&ExposureTime] = ControlInfo(14, 115687000, 20000);
		c[&ExposureTimeMode] = ControlInfo(0, 1, 0);
		c[&AnalogueGain] = ControlInfo(1.0f, sensor.maxGain, 1.0f);
		c[&AnalogueGainMode] = ControlInfo(0, 1, 0);
		c[&AwbEnable] = ControlInfo(false, true);
		c[&AwbMode] = ControlInfo(0, 7, 0);
		c[&ColourGains] = ControlInfo(0.0f, 32.0f);
		c[&ColourTemperature] = ControlInfo(100, 100000);
		c[&Brightness] = ControlInfo(-1.0f, 1.0f, 0.0f);
		c[&Contrast] = ControlInfo(0.0f, 32.0f, 1.0f);
		c[&Saturation] = ControlInfo(0.0f, 32.0f, 1.0f);
		c[&Sharpness] = ControlInfo(0.0f, 16.0f, 1.0f);
		c[&HdrMode] = ControlInfo(0, 4, 0);
		c[&ScalerCrop] = ControlInfo(Rectangle(mode.crop.x, mode.crop.y, 64, 64), mode.crop, mode.crop);
		c[&FrameDurationLimits] = ControlInfo(modeDuration(), (int64_t)115722000, (int64_t)33333);
		c[&draft::NoiseReductionMode] = ControlInfo(0, 4, 0);
		c[&SyncMode] = ControlInfo(0, 2, 0);
		if (sensor.autofocus) {
			c[&AfMode] = ControlInfo(0, 2, 0);
			c[&AfRange] = ControlInfo(0, 2, 0);
			c[&AfSpeed] = ControlInfo(0, 1, 0);
			c[&AfMetering] = ControlInfo(0, 1, 0);
			c[&AfTrigger] = ControlInfo(0, 1, 0);
			c[&AfPause] = ControlInfo(0, 2, 0);
			c[&AfWindows] = ControlInfo(Rectangle(), Rectangle(65535, 65535, 65535, 65535), Rectangle());
			c[&LensPosition] = ControlInfo(0.0f, 15.0f, 1.0f);
		}
		controlInfo_ = ControlInfoMap(std::move(c), knownControls());
	}

	/* the sensor mode that serves an output size (and depth) best */
	const Mode &pick(const Size &want, unsigned bits) const
	{
		const Mode *best = nullptr;
		double bestScore = 0;
		auto cost = [](double d) { return d < 0 ? -d / 4 : d * 2; };
		for (const Mode &m : sensor.modes) {
			double score = cost((double)want.width - m.width) + cost((double)want.height - m.height) +
				       1500 * std::abs((double)want.width / want.height - (double)m.width / m.height) +
				       (bits && bits != m.bits ? 500 * std::abs((double)bits - m.bits) : 0);
			if (!best || score < bestScore) {
				best = &m;
				bestScore = score;
			}
		}
		return *best;
	}

	void apply(const ControlList &c)
	{
		using namespace libcamera::controls;
		if (auto v = c.get(FrameDurationLimits)) {
			want_.durMin = std::clamp((*v)[0], modeDuration(), (int64_t)115722000);
			want_.durMax = std::max(want_.durMin, (*v)[1]);
		}
		if (auto v = c.get(ExposureTimeMode)) want_.manualExposure = *v == ExposureTimeModeManual;
		if (auto v = c.get(AnalogueGainMode)) want_.manualGain = *v == AnalogueGainModeManual;
		if (auto v = c.get(AeEnable)) want_.manualExposure = want_.manualGain = !*v;
		if (auto v = c.get(ExposureTime); v && *v > 0) fixed_.us = *v;
		if (auto v = c.get(AnalogueGain); v && *v > 0) fixed_.gain = std::min(*v, sensor.maxGain);
		if (auto v = c.get(ExposureValue)) want_.ev = *v;
		if (auto v = c.get(AeExposureMode)) want_.longExposures = *v == ExposureLong;
		if (auto v = c.get(Brightness)) want_.brightness = *v;
		if (auto v = c.get(Contrast)) want_.contrast = *v;
		if (auto v = c.get(SyncMode)) want_.sync = *v;
		if (auto v = c.get(ColourGains)) { want_.redGain = (*v)[0]; want_.blueGain = (*v)[1]; }
		if (auto v = c.get(ColourTemperature)) want_.temperature = *v;
		if (auto v = c.get(ScalerCrop)) want_.crop = *v;
		if (auto v = c.get(AfMode)) { if (*v != want_.afMode) { scan_ = *v == AfModeContinuous ? 8 : 0; focused_ = false; } want_.afMode = *v; }
		if (auto v = c.get(LensPosition)) want_.lens = *v;
		if (auto v = c.get(AfTrigger); v && want_.afMode == AfModeAuto) { scan_ = *v == AfTriggerStart ? 8 : 0; focused_ = false; }
	}

	/* The exposure of the frames to come: auto-exposure divides, what is fixed stays (turned off: stays as it was). */
	void expose()
	{
		if (!want_.manualExposure) fixed_.us = want_.exposure;
		if (!want_.manualGain) fixed_.gain = want_.gain;
		rig::AutoExposure::Limits limits{ (double)want_.durMax - 50, sensor.maxGain };
		rig::Exposure e = ae_.divide(limits, { want_.manualExposure ? fixed_.us : 0, want_.manualGain ? fixed_.gain : 0, 1 },
					     want_.longExposures);
		want_.exposure = std::lround(e.us);
		want_.gain = e.gain;
		want_.digital = e.digital;
	}

	int32_t focusState()
	{
		if (scan_ > 0) {
			if (--scan_ > 0)
				return controls::AfStateScanning;
			focused_ = true;
			want_.lens = 2.0f;
		}
		return focused_ ? controls::AfStateFocused : controls::AfStateIdle;
	}

	void launch(RigPipeline *p, const ControlList *c)
	{
		pipeline_ = p;
		want_ = Settings{};
		want_.crop = mode.crop;
		want_.durMin = std::max(want_.durMin, modeDuration());
		scan_ = 0; focused_ = false;
		fixed_ = { 20000, 1, 1 };
		ae_.restart();
		if (c)
			apply(*c);
		expose();
		delayed_.assign(std::max(1, atoi(env("RIG_DELAY", "2"))), want_);
		stop_ = false;
		thread_ = std::thread([this] { pthread_setname_np(pthread_self(), "rigcam"); run(); });
	}

	void halt()
	{
		while (told("hangstop", number))
			usleep(10000);
		if (!thread_.joinable())
			return;
		{
			std::lock_guard<std::mutex> l(lock_);
			stop_ = true;
		}
		wake_.notify_all();
		thread_.join();
		for (auto &[fb, m] : maps_)
			munmap(m.first, m.second);
		maps_.clear();
		queue_.clear();
	}

	void queue(Request *r)
	{
		std::lock_guard<std::mutex> l(lock_);
		queue_.push_back(r);
	}

	void run();

	const Sensor &sensor;
	const int number;
	std::string id;
	Mode mode;
	std::array<Stream, 3> streams;
	std::map<const Stream *, std::unique_ptr<Scene>> scenes;

private:
	uint8_t *map(const FrameBuffer *fb)
	{
		auto it = maps_.find(fb);
		if (it == maps_.end()) {
			const auto &p = fb->planes();
			size_t len = p.back().offset + p.back().length;
			void *m = mmap(nullptr, len, PROT_READ | PROT_WRITE, MAP_SHARED, p[0].fd.get(), 0);
			if (m == MAP_FAILED)
				return nullptr;
			it = maps_.emplace(fb, std::make_pair((uint8_t *)m, len)).first;
		}
		return it->second.first + fb->planes()[0].offset;
	}

	RigPipeline *pipeline_ = nullptr;
	std::thread thread_;
	std::mutex lock_;
	std::condition_variable wake_;
	bool stop_ = false;
	std::deque<Request *> queue_;
	std::map<const FrameBuffer *, std::pair<uint8_t *, size_t>> maps_;

	/* touched by launch() before, and run() while, the thread runs */
	Settings want_;
	rig::Exposure fixed_{ 20000, 1, 1 };    /* what manual exposure and gain are, or would be */
	rig::AutoExposure ae_;
	std::deque<Settings> delayed_;
	int scan_ = 0;
	bool focused_ = false;
	int lockFd_ = -1;

	int64_t syncError(int64_t sofNs, int64_t periodNs, int32_t role);
};

/* ------------------------------------------------------------------ configuration */

class RigConfiguration : public CameraConfiguration
{
public:
	RigConfiguration(const RigCamera *c) : camera_(c) {}

	Status validate() override
	{
		Status status = Valid;
		StreamConfiguration *raw = nullptr;
		unsigned outputs = 0;
		Size biggest;

		if (config_.empty())
			return Invalid;
		for (auto &cfg : config_) {
			if (isRaw(cfg.pixelFormat)) {
				if (raw)
					return Invalid;
				raw = &cfg;
			} else {
				if (++outputs > 2)
					return Invalid;
				biggest = std::max(biggest, cfg.size);
			}
		}
		if (orientation != Orientation::Rotate0 && orientation != Orientation::Rotate180 &&
		    orientation != Orientation::Rotate0Mirror && orientation != Orientation::Rotate180Mirror) {
			orientation = Orientation::Rotate0;
			status = Adjusted;
		}

		if (sensorConfig) {
			bool known = false;
			for (const Mode &m : camera_->sensor.modes)
				if (m.width == sensorConfig->outputSize.width && m.height == sensorConfig->outputSize.height &&
				    m.bits == sensorConfig->bitDepth) {
					mode = m;
					known = true;
				}
			if (!known)
				return Invalid;
		} else {
			mode = camera_->pick(raw ? raw->size : biggest, raw && format(raw->pixelFormat)->a < 16 ? format(raw->pixelFormat)->a : 0);
		}

		for (auto &cfg : config_) {
			StreamConfiguration was = cfg;
			if (&cfg == raw) {
				auto ok = rawFormats(mode.bits);
				if (std::find(ok.begin(), ok.end(), cfg.pixelFormat) == ok.end())
					cfg.pixelFormat = ok.front();
				cfg.size = Size(mode.width, mode.height);
				cfg.colorSpace = ColorSpace::Raw;
			} else {
				auto offered = outputFormats();
				if (std::find(offered.begin(), offered.end(), cfg.pixelFormat) == offered.end())
					cfg.pixelFormat = offered.front();
				cfg.size.width = std::clamp(cfg.size.width & ~1u, 64u, 16384u);
				cfg.size.height = std::clamp(cfg.size.height & ~1u, 64u, 16384u);
				if (!cfg.colorSpace)
					cfg.colorSpace = ColorSpace::Sycc;
			}
			const Format &f = *format(cfg.pixelFormat);
			unsigned least = alignedStride(f, cfg.size.width), align = pisp() ? 64 : 32;
			if (f.kind == Kind::Yuv420)
				align *= 2;
			if (cfg.stride < least || cfg.stride % align)
				cfg.stride = least;
			cfg.frameSize = frameSize(f, cfg.stride, cfg.size.height);
			if (!cfg.bufferCount)
				cfg.bufferCount = 4;
			if (cfg.pixelFormat != was.pixelFormat || cfg.size != was.size || (was.stride && cfg.stride != was.stride))
				status = Adjusted;
		}
		if (validateColorSpaces(ColorSpaceFlag::StreamsShareColorSpace) == Adjusted)
			status = Adjusted;
		return status;
	}

	Mode mode;

private:
	const RigCamera *camera_;
};

/* ------------------------------------------------------------------ pipeline handler */

class RigPipeline : public PipelineHandler
{
public:
	RigPipeline(CameraManager *m)
		: PipelineHandler(m),
		  alloc_(DmaBufAllocator::DmaBufAllocatorFlag::CmaHeap | DmaBufAllocator::DmaBufAllocatorFlag::SystemHeap |
			 DmaBufAllocator::DmaBufAllocatorFlag::UDmaBuf)
	{
	}
	~RigPipeline() { if (mine_) taken = false; }

	bool match(DeviceEnumerator *) override
	{
		if (taken)
			return false;
		taken = mine_ = true;
		std::stringstream names(env("RIG_CAMERAS", "imx708"));
		std::string name;
		int n = 0;
		bool any = false;
		while (std::getline(names, name, ',')) {
			for (const Sensor &s : sensors()) {
				if (name != s.model)
					continue;
				if (told("unplug", n)) {
					n++;
					continue;
				}
				auto data = std::make_unique<RigCamera>(this, s, n++);
				std::set<Stream *> streams;
				for (Stream &st : data->streams)
					streams.insert(&st);
				std::string id = data->id;
				registerCamera(Camera::create(std::move(data), id, streams));
				any = true;
			}
		}
		return any;
	}

	bool acquireDevice(Camera *camera) override { return cameraData(camera)->lockDevice(); }
	void releaseDevice(Camera *camera) override { cameraData(camera)->unlockDevice(); }

	std::unique_ptr<CameraConfiguration> generateConfiguration(Camera *camera, Span<const StreamRole> roles) override
	{
		RigCamera *data = cameraData(camera);
		auto config = std::make_unique<RigConfiguration>(data);
		for (StreamRole role : roles) {
			std::map<PixelFormat, std::vector<SizeRange>> offer;
			StreamConfiguration cfg;
			if (role == StreamRole::Raw) {
				/* named by the sensor's own depth, on either platform; pisp then adjusts to 16 bits */
				for (const Mode &m : data->sensor.modes) {
					offer[m.bits == 12 ? formats::SBGGR12_CSI2P : formats::SBGGR10_CSI2P].push_back(SizeRange(Size(m.width, m.height)));
					offer[m.bits == 12 ? formats::SBGGR12 : formats::SBGGR10].push_back(SizeRange(Size(m.width, m.height)));
				}
				cfg = StreamConfiguration(StreamFormats(offer));
				const Mode &m = data->sensor.modes.back();
				cfg.size = Size(m.width, m.height);
				cfg.pixelFormat = rawFormats(m.bits).front();
				cfg.colorSpace = ColorSpace::Raw;
				cfg.bufferCount = 2;
			} else {
				for (const PixelFormat &p : outputFormats())
					offer[p] = { SizeRange(Size(64, 64), data->sensor.array, 2, 2) };
				cfg = StreamConfiguration(StreamFormats(offer));
				if (role == StreamRole::StillCapture) {
					cfg.size = data->sensor.array;
					cfg.pixelFormat = formats::YUV420;
					cfg.colorSpace = ColorSpace::Sycc;
					cfg.bufferCount = 1;
				} else if (role == StreamRole::VideoRecording) {
					cfg.size = Size(1920, 1080);
					cfg.pixelFormat = formats::YUV420;
					cfg.colorSpace = ColorSpace::Rec709;
					cfg.bufferCount = 4;
				} else {
					cfg.size = Size(800, 600);
					cfg.pixelFormat = formats::XRGB8888;
					cfg.colorSpace = ColorSpace::Sycc;
					cfg.bufferCount = 4;
				}
			}
			config->addConfiguration(cfg);
		}
		if (!roles.empty() && config->validate() == CameraConfiguration::Invalid)
			return {};
		for (StreamConfiguration &cfg : *config)
			cfg.stride = 0;         /* else it would bind whoever changes the format only */
		return config;
	}

	int configure(Camera *camera, CameraConfiguration *config) override
	{
		RigCamera *data = cameraData(camera);
		data->mode = static_cast<RigConfiguration *>(config)->mode;
		data->scenes.clear();
		unsigned i = 0;
		for (auto &cfg : *config) {
			Stream *s = &data->streams[i++];
			cfg.setStream(s);
			Canvas c{ *format(cfg.pixelFormat), cfg.size.width, cfg.size.height, cfg.stride, cfg.frameSize, Matrix(cfg.colorSpace) };
			data->scenes[s] = std::make_unique<Scene>(c, data->number);
		}
		data->properties_.set(properties::ScalerCropMaximum, data->mode.crop);
		data->advertise();
		return 0;
	}

	int exportFrameBuffers(Camera *, Stream *stream, std::vector<std::unique_ptr<FrameBuffer>> *buffers) override
	{
		if (!alloc_.isValid())
			return -ENOBUFS;
		const StreamConfiguration &cfg = stream->configuration();
		return alloc_.exportBuffers(cfg.bufferCount, { cfg.frameSize }, buffers);
	}

	int start(Camera *camera, const ControlList *controls) override
	{
		if (told("unplug", cameraData(camera)->number))
			return -ENODEV;
		cameraData(camera)->launch(this, controls);
		return 0;
	}

	void stopDevice(Camera *camera) override
	{
		RigCamera *data = cameraData(camera);
		data->halt();
		thread()->dispatchMessages(Message::Type::InvokeMessage, this);
		while (!data->queuedRequests_.empty())
			cancelRequest(data->queuedRequests_.front());
	}

	int queueRequestDevice(Camera *camera, Request *request) override
	{
		cameraData(camera)->queue(request);
		return 0;
	}

	/* both are called on the camera manager's thread */
	void failed(Request *request) { cancelRequest(request); }

	void done(Request *request)
	{
		for (const auto &[stream, buffer] : request->buffers())
			completeBuffer(request, buffer);
		completeRequest(request);
	}

private:
	RigCamera *cameraData(Camera *camera) { return static_cast<RigCamera *>(camera->_d()); }

	static inline std::atomic<bool> taken{ false };
	bool mine_ = false;
	DmaBufAllocator alloc_;
};

/*
 * Software synchronisation. The server writes down when its frame began and how long it is; returns how much longer a
 * client's frame must be to begin the next one together with the server's (0: in step, or nobody to follow).
 */
int64_t RigCamera::syncError(int64_t sofNs, int64_t periodNs, int32_t role)
{
	std::string path = std::string(env("RIG_CTL", "/nonexistent")) + "/sync";
	if (role == 1) {
		if (FILE *f = fopen((path + ".new").c_str(), "w")) {
			fprintf(f, "%lld %lld\n", (long long)sofNs, (long long)periodNs);
			fclose(f);
			rename((path + ".new").c_str(), path.c_str());
		}
		return 0;
	}
	long long began, period;
	FILE *f = fopen(path.c_str(), "r");
	bool known = f && fscanf(f, "%lld %lld", &began, &period) == 2 && period > 0;
	if (f)
		fclose(f);
	if (!known)
		return -1;
	int64_t late = (sofNs - began) % period;
	if (late < 0)
		late += period;
	return late < 50000 || period - late < 50000 ? 0 : period - late;
}

/* the sensor's clock */
void RigCamera::run()
{
	const int startup = atoi(env("RIG_STARTUP", "0"));
	const char *fixed = env("RIG_LATENCY_MS", "");
	const double lux0 = atof(env("RIG_LUX", "400"));
	auto sof = Clock::now() + std::chrono::microseconds((int64_t)(atof(env("RIG_START_MS", "0")) * 1000));
	int inStep = 0;

	for (uint32_t seq = 0;; seq++) {
		Settings now = delayed_.front();        /* what the sensor applies to this frame */
		int64_t period = std::clamp(std::max<int64_t>(now.durMin, now.exposure + 100), now.durMin, now.durMax);
		now.exposure = std::min<int64_t>(now.exposure, period - 50);
		int64_t latency = *fixed ? (int64_t)(atof(fixed) * 1000) : modeDuration() + 3000;
		auto ready = sof + std::chrono::microseconds(std::min(latency, period));

		Request *request = nullptr;
		std::deque<Request *> lost;
		{
			std::unique_lock<std::mutex> l(lock_);
			wake_.wait_until(l, ready, [this] { return stop_; });
			if (stop_)
				return;
			if (told("unplug", number)) {
				lost.swap(queue_);
			} else if (!queue_.empty() && !told("stall", number)) {
				request = queue_.front();
				queue_.pop_front();
			}
		}
		for (Request *r : lost)
			pipeline_->invokeMethod(&RigPipeline::failed, ConnectionTypeQueued, r);

		double lux = ::number(ctl("lux", number), lux0);
		double scale = rig::frameScale(lux, now.exposure, now.gain);
		int64_t mono = std::chrono::nanoseconds(sof.time_since_epoch()).count();
		int64_t stretch = now.sync ? syncError(mono, period * 1000, now.sync) : 0;
		inStep = stretch == 0 ? inStep + 1 : 0;
		if (request) {
			apply(request->controls());
			std::array<rig::Tone, 3> tones;
			for (int k = 0; k < 3; k++) {
				double white = k == 0 ? now.redGain / 1.8 : k == 2 ? now.blueGain / 1.6 : 1;
				/* in steps of 1/32 stop, so that small moves of the auto-exposure do not develop anew */
				double stops = std::round(32 * std::log2(std::max(1e-9, scale * now.digital * white))) / 32;
				tones[k] = { std::exp2(stops), now.brightness, now.contrast };
			}
			bool ok = !told("error", number);
			bool shortened = told("short", number);
			for (const auto &[stream, buffer] : request->buffers()) {
				Scene &scene = *scenes.at(stream);
				const auto &planes = buffer->planes();
				unsigned room = 0;
				for (const auto &p : planes)
					room += p.length;
				uint8_t *mem = room >= scene.canvas().size ? map(buffer) : nullptr;
				if (mem)
					scene.draw(mem, seq, tones);
				else
					ok = false;
				FrameMetadata &fm = buffer->_d()->metadata();
				fm.status = !ok ? FrameMetadata::FrameError
						: (int)seq < startup ? FrameMetadata::FrameStartup : FrameMetadata::FrameSuccess;
				fm.sequence = seq;
				fm.timestamp = mono;
				for (size_t i = 0; i < planes.size(); i++)
					fm.planes()[i].bytesused = planes[i].length / (shortened ? 2 : 1);
			}

			using namespace libcamera::controls;
			ControlList &md = request->_d()->metadata();
			timespec wall, m;
			clock_gettime(CLOCK_REALTIME, &wall);
			clock_gettime(CLOCK_MONOTONIC, &m);
			md.set(SensorTimestamp, mono);
			md.set(FrameWallClock, mono + ((int64_t)wall.tv_sec - m.tv_sec) * 1000000000 + (wall.tv_nsec - m.tv_nsec));
			md.set(ExposureTime, now.exposure);
			md.set(AnalogueGain, now.gain);
			md.set(DigitalGain, now.digital);
			md.set(FrameDuration, period);
			md.set(Lux, (float)rig::reportedLux(scale, now.exposure, now.gain));
			md.set(AeState, now.manualExposure && now.manualGain ? AeStateIdle
					: ae_.converged() ? AeStateConverged : AeStateSearching);
			md.set(ColourTemperature, now.temperature);
			md.set(ColourGains, { now.redGain, now.blueGain });
			md.set(ColourCorrectionMatrix, { 1.0f, 0.0f, 0.0f, 0.0f, 1.0f, 0.0f, 0.0f, 0.0f, 1.0f });
			md.set(SensorBlackLevels, { 4096, 4096, 4096, 4096 });
			md.set(SensorTemperature, 40.0f);
			md.set(ScalerCrop, now.crop);
			md.set(FocusFoM, 1000);
			if (sensor.autofocus) {
				md.set(AfState, focusState());
				md.set(AfPauseState, AfPauseStateRunning);
				md.set(LensPosition, want_.lens);
			}
			if (now.sync) {
				md.set(SyncReady, inStep >= 10);
				md.set(SyncTimer, (int64_t)0);
			}
			pipeline_->invokeMethod(&RigPipeline::done, ConnectionTypeQueued, request);
		}
		ae_.see(scale, { (double)now.exposure, now.gain, now.digital }, want_.ev);
		expose();
		delayed_.pop_front();
		delayed_.push_back(want_);
		sof += std::chrono::microseconds(period) + std::chrono::nanoseconds(std::max<int64_t>(stretch, 0));
	}
}

REGISTER_PIPELINE_HANDLER(RigPipeline, "rigcam")

} /* namespace */
