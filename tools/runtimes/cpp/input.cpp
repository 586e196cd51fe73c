// From a picture and a class to what an explainer takes, as its metadata and its inputs say.

#include <algorithm>
#include <cmath>

#include "host.hpp"

using nlohmann::json;

namespace {

constexpr float LUMINANCE[3] = {0.299f, 0.587f, 0.114f};

struct Sizes {
    int64_t height, width, channels;
};

// Sizes of an input [N, C, H, W] or [N, H, W, C]: what the metadata or the input leave open is the picture's.
Sizes sizes_of(const Picture& picture, const json& way, const std::vector<int64_t>& shape) {
    const bool last = way["layout"] == "NHWC";
    const int64_t height = shape[last ? 1 : 2], width = shape[last ? 2 : 3], channels = shape[last ? 3 : 1];
    Sizes sizes{height > 0 ? height : picture.height, width > 0 ? width : picture.width, channels == 1 ? 1 : 3};
    if (!way["size"].is_null()) sizes.height = way["size"][0], sizes.width = way["size"][1];
    if (sizes.height != picture.height || sizes.width != picture.width)
        throw Refusal("the picture",
                      "has " + std::to_string(picture.width) + " x " + std::to_string(picture.height) +
                          " pixels, the explainer takes " + std::to_string(sizes.width) + " x " +
                          std::to_string(sizes.height),
                      "resize it");
    return sizes;
}

// (pixel / scale - mean) / std, rounded to float at each step as numpy does, so that the model sees the same input to
// the bit. Colours become luminance for a grey model.
std::vector<float> prepared(const Picture& picture, const json& way, const Sizes& sizes) {
    const bool last = way["layout"] == "NHWC", reversed = way["color_order"] == "BGR";
    const auto mean = way["mean"].get<std::vector<float>>(), std = way["std"].get<std::vector<float>>();
    const float scale = way["scale"];
    const int64_t plane = sizes.height * sizes.width, channels = sizes.channels;
    std::vector<float> values(channels * plane);
    for (int64_t pixel = 0; pixel < plane; pixel++) {
        const float* rgb = &picture.levels[pixel * 3];
        double luminance = 0;
        for (int c = 0; c < 3; c++) luminance += double(LUMINANCE[c]) * rgb[c];
        for (int64_t c = 0; c < channels; c++) {
            const float level = channels == 3 ? rgb[reversed ? 2 - c : c] : picture.grey ? rgb[0] : float(luminance);
            values[last ? pixel * channels + c : c * plane + pixel] =
                (level / scale - mean[c % mean.size()]) / std[c % std.size()];
        }
    }
    return values;
}

// A tensor of some shape that holds the values over and over.
template <typename T>
Ort::Value filled(const std::vector<int64_t>& shape, const std::vector<T>& values) {
    Ort::AllocatorWithDefaultOptions allocator;
    Ort::Value tensor = Ort::Value::CreateTensor<T>(allocator, shape.data(), shape.size());
    const size_t count = tensor.GetTensorTypeAndShapeInfo().GetElementCount();
    T* data = tensor.GetTensorMutableData<T>();
    for (size_t i = 0; i < count; i++) data[i] = values[i % values.size()];
    return tensor;
}

Ort::Value image_of(const Picture& picture, const json& way, const std::vector<int64_t>& declared, bool pixels) {
    const Sizes sizes = sizes_of(picture, way, declared);
    const std::vector<float> values = prepared(picture, way, sizes);
    const std::vector<int64_t> shape =
        way["layout"] == "NHWC" ? std::vector<int64_t>{declared[0], sizes.height, sizes.width, sizes.channels}
                                : std::vector<int64_t>{declared[0], sizes.channels, sizes.height, sizes.width};
    if (!pixels) return filled(shape, values);
    std::vector<uint8_t> bytes;
    for (float value : values) bytes.push_back(uint8_t(std::clamp(std::nearbyint(value), 0.0f, 255.0f)));
    return filled(shape, bytes);
}

}  // namespace

Feeds feeds_for(const Ort::Session& session, const std::string& path, const std::string& image, const json& way,
                const Picture& picture, int64_t target) {
    Ort::AllocatorWithDefaultOptions allocator;
    Feeds feeds;
    std::vector<std::vector<int64_t>> shapes;
    std::vector<ONNXTensorElementDataType> types;
    int64_t batch = 1;
    for (size_t i = 0; i < session.GetInputCount(); i++) {
        const Ort::TypeInfo info = session.GetInputTypeInfo(i);
        feeds.names.push_back(session.GetInputNameAllocated(i, allocator).get());
        shapes.push_back(info.GetTensorTypeAndShapeInfo().GetShape());
        types.push_back(info.GetTensorTypeAndShapeInfo().GetElementType());
        if (feeds.names[i] != image) continue;
        const size_t axes = shapes[i].size();
        if (axes != 4)
            throw Refusal(path, "takes " + std::to_string(axes) + " axes, a picture has 4",
                          "feed it from a program of your own");
        batch = std::max<int64_t>(shapes[i][0], 1);  // -1 is a free size
    }
    for (size_t i = 0; i < feeds.names.size(); i++) {
        const std::string& name = feeds.names[i];
        const bool pixels = name == image && types[i] == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
        const auto fed = name == "target" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        if (!pixels && types[i] != fed)
            throw Refusal(path, "takes " + name + " in a type unknown to this program", "explain it with onnxlrp run");
        shapes[i].at(0) = batch;
        if (name == image)
            feeds.values.push_back(image_of(picture, way, shapes[i], pixels));
        else if (name == "target")
            feeds.values.push_back(filled<int64_t>(shapes[i], {target}));
        else if (name.rfind("condition/", 0) == 0)
            feeds.values.push_back(filled<float>(shapes[i], {1}));
        else
            throw Refusal(path, "takes " + name + ", which a picture and a class do not say",
                          "convert the classifier without --start fed, or feed it from a program of your own");
    }
    return feeds;
}
