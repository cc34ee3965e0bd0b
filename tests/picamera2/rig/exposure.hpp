/*
 * exposure.hpp - light, exposure and auto-exposure of rigcam's simulated cameras. No libcamera in here.
 *
 * The scene has an illuminance in lux. A frame's linear scale is
 *
 *     scale = lux / 400 * exposure_us * analogue gain / 15000
 *
 * and a pixel drawn as v (sRGB) leaves the camera as sRGB(scale * digital gain * linear(v)), clipped. At 400 lux, 10 ms and gain 1.5
 * the picture is therefore exactly as drawn. The meter sees sixteen grey cards, from deep shadow to the brightest that
 * is not clipped at scale 1, whatever is drawn: over-exposure saturates it step by step as in a real scene.
 *
 * The auto-exposure is shaped like Raspberry Pi's (libcamera src/ipa/rpi/controller/rpi/agc_channel.cpp): total exposure
 * is filtered by 0.2 a frame (at once during the first ten frames), and divided into shutter and gain by the stages of
 * the exposure mode; what the gain cannot give, digital gain does up to 4.
 */
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace rig {

constexpr double kLux = 400, kTotal = 15000;    /* scale 1: this light at this exposure_us * gain */

inline double metered(double scale)
{
	double sum = 0;
	for (int card = 0; card < 16; card++)
		sum += std::min(1.0, scale * 0.18 * std::exp2(card * 0.6 - 6.6));
	return sum / 16;
}

inline double frameScale(double lux, double exposure, double gain) { return lux / kLux * exposure * gain / kTotal; }

/* what the IPA would report: the formula of lux.cpp on what the meter saw, so it saturates where the meter does */
inline double reportedLux(double scale, double exposure, double gain)
{
	return kLux * metered(scale) / metered(1) * kTotal / (exposure * gain);
}

struct Exposure {
	double us, gain, digital;
};

struct Stage {
	double us, gain;
};

class AutoExposure
{
public:
	/* what the sensor allows: shutter up to frame duration, analogue gain up to its maximum */
	struct Limits {
		double maxUs, maxGain;
	};

	void restart() { frames_ = 0; filtered_ = kTotal; }

	/* One frame was metered at this scale (before digital gain) with these settings; ev in stops. */
	void see(double scale, const Exposure &was, double ev)
	{
		double target = metered(1) * std::exp2(ev), seen = std::max(metered(scale), 1e-7);
		double wanted = was.us * was.gain * std::clamp(target / seen, 1.0 / 16, 16.0);
		double speed = frames_++ < 10 ? 1.0 : 0.2;
		if (speed < 1 && std::abs(wanted / filtered_ - 1) < 0.2)
			speed = std::sqrt(speed);
		filtered_ = speed * wanted + (1 - speed) * filtered_;
		converged_ = std::abs(wanted / filtered_ - 1) < 0.05;
	}

	bool converged() const { return converged_; }

	/* Divide the total into shutter and gain; a value above zero in `fixed` is kept as it is. */
	Exposure divide(const Limits &limits, const Exposure &fixed, bool longMode) const
	{
		static const std::array<Stage, 5> normal{ { { 100, 1 }, { 10000, 2 }, { 30000, 4 }, { 60000, 6 }, { 66666, 16 } } };
		static const std::array<Stage, 5> slow{ { { 1000, 1 }, { 30000, 4 }, { 60000, 6 }, { 90000, 8 }, { 120000, 16 } } };
		const auto &stages = longMode ? slow : normal;
		Exposure out{ fixed.us > 0 ? fixed.us : std::min(stages[0].us, limits.maxUs), fixed.gain > 0 ? fixed.gain : 1, 1 };
		for (const Stage &stage : stages) {
			if (fixed.us <= 0)
				out.us = std::clamp(filtered_ / out.gain, out.us, std::max(out.us, std::min(stage.us, limits.maxUs)));
			if (fixed.gain <= 0)
				out.gain = std::clamp(filtered_ / out.us, out.gain, std::max(out.gain, std::min(stage.gain, limits.maxGain)));
		}
		if (fixed.us <= 0 && filtered_ < out.us * out.gain)
			out.us = std::max(14.0, filtered_ / out.gain);
		if (fixed.us <= 0 || fixed.gain <= 0)
			out.digital = std::clamp(filtered_ / (out.us * out.gain), 1.0, 4.0);
		return out;
	}

private:
	unsigned frames_ = 0;
	double filtered_ = kTotal;
	bool converged_ = false;
};

/* The curve from drawn 8-bit sRGB to delivered 8-bit sRGB, for one channel. */
struct Tone {
	double scale = 1, brightness = 0, contrast = 1;

	bool operator==(const Tone &) const = default;

	std::array<uint8_t, 256> curve() const
	{
		std::array<uint8_t, 256> out;
		for (int v = 0; v < 256; v++) {
			double s = v / 255.0, linear = s <= 0.04045 ? s / 12.92 : std::pow((s + 0.055) / 1.055, 2.4);
			double x = std::min(1.0, linear * scale);
			double e = x <= 0.0031308 ? 12.92 * x : 1.055 * std::pow(x, 1 / 2.4) - 0.055;
			out[v] = (uint8_t)std::lround(255 * std::clamp((e - 0.5) * contrast + 0.5 + brightness, 0.0, 1.0));
		}
		return out;
	}
};

} /* namespace rig */
