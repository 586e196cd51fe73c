// Pictures: read as `onnxlrp run` reads them, and drawn of relevance.

#include <png.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>

#include "host.hpp"

namespace {

struct Reader {  // libpng's two structures, and why it gave up
    std::string why;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &why, give_up, [](png_structp, png_const_charp) {});
    png_infop info = png_create_info_struct(png);
    ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }

    static void give_up(png_structp png, png_const_charp why) {
        *static_cast<std::string*>(png_get_error_ptr(png)) = why;
        png_longjmp(png, 1);
    }
};

// A value of some opacity over white, rounded as Pillow does it.
int over_white(int value, int alpha) {
    const int sum = value * alpha + 255 * (255 - alpha) + 128;
    return alpha == 255 ? value : ((sum >> 1) + sum * 128) >> 15;
}

}  // namespace

Picture read_png(const std::string& path) {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) throw Refusal(path, std::string("cannot be read (") + std::strerror(errno) + ")", "check the path");
    Reader reader;
    if (setjmp(png_jmpbuf(reader.png)))
        throw Refusal(path, "cannot be read as a PNG (" + reader.why + ")", "save it as a PNG");
    png_init_io(reader.png, file.get());
    png_read_png(reader.png, reader.info, PNG_TRANSFORM_EXPAND, nullptr);  // no palette, eight bits or sixteen

    const auto of = [&](auto get) { return int(get(reader.png, reader.info)); };
    const int type = of(png_get_color_type), bytes = of(png_get_bit_depth) / 8, stride = of(png_get_channels) * bytes;
    const bool colour = type & PNG_COLOR_MASK_COLOR, alpha = type & PNG_COLOR_MASK_ALPHA;
    const bool fractions = bytes == 2 && !colour && (!alpha || png_get_valid(reader.png, reader.info, PNG_INFO_tRNS));
    Picture picture{of(png_get_image_width), of(png_get_image_height), !colour, {}};
    for (int y = 0; y < picture.height; y++) {
        const uint8_t* pixel = png_get_rows(reader.png, reader.info)[y];
        for (int x = 0; x < picture.width; x++, pixel += stride)
            for (int c = 0; c < 3; c++) {
                const uint8_t* sample = pixel + (colour ? c * bytes : 0);  // its upper eight bits come first
                const int opacity = alpha ? pixel[stride - bytes] : 255;
                picture.levels.push_back(fractions ? (sample[0] * 256 + sample[1]) * (255.0f / 65535.0f)
                                                   : over_white(sample[0], opacity));
            }
    }
    return picture;
}

void write_png(const std::string& path, const Pixels& picture) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = picture.width, image.height = picture.height, image.format = PNG_FORMAT_RGB;
    if (!png_image_write_to_file(&image, path.c_str(), 0, picture.rgb.data(), 0, nullptr))
        throw Refusal(path, std::string("cannot be written (") + image.message + ")",
                      "check the folder and its permissions");
}

// 257 colours from relevance -1 over 0 to 1, linear between evenly spaced anchors.
static std::array<std::array<uint8_t, 3>, 257> colours() {
    const int anchors[7][3] = {{11, 42, 120},   {63, 123, 224}, {169, 205, 251}, {255, 255, 255},
                               {255, 184, 166}, {232, 65, 58},  {125, 7, 22}};
    std::array<std::array<uint8_t, 3>, 257> table{};
    for (int i = 0; i < 257; i++) {
        const double place = i * 6 / 256.0;
        const int left = std::min(int(place), 5);
        for (int c = 0; c < 3; c++) {
            const int a = anchors[left][c], b = anchors[left + 1][c];
            table[i][c] = uint8_t(std::nearbyint(a + (b - a) * (place - left)));
        }
    }
    return table;
}

// The 99.8th percentile with linear interpolation, taken from the nearer side: rounding as numpy's.
static double limit_of(const std::vector<double>& map) {
    std::vector<double> strength;
    for (double value : map)
        if (value != 0) strength.push_back(std::abs(value));
    if (strength.empty()) return 1;
    std::sort(strength.begin(), strength.end());
    const double place = (strength.size() - 1) * 0.998;
    const size_t below = size_t(place);
    const double a = strength[below], b = strength[std::min(below + 1, strength.size() - 1)], t = place - below;
    return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

Pixels draw(const float* relevance, const std::vector<int64_t>& shape, const std::string& layout) {
    const bool last = layout == "NHWC";
    const int64_t* sizes = shape.data() + shape.size() - 3;
    const int64_t channels = sizes[last ? 2 : 0], height = sizes[last ? 0 : 1], width = sizes[last ? 1 : 2];
    std::vector<double> map(height * width);
    for (int64_t pixel = 0; pixel < height * width; pixel++)
        for (int64_t c = 0; c < channels; c++)
            map[pixel] += relevance[last ? pixel * channels + c : c * height * width + pixel];
    static const auto table = colours();
    const double limit = limit_of(map);
    Pixels drawn{int(width), int(height), {}};
    for (double value : map) {
        const auto& colour = table[128 + int(std::nearbyint(std::clamp(value / limit, -1.0, 1.0) * 128))];
        drawn.rgb.insert(drawn.rgb.end(), colour.begin(), colour.end());
    }
    return drawn;
}
